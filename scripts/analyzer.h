// SPDX-License-Identifier: MIT
// Put before every file that an analyzer looks at. It sees one file at a time, and cannot
// know what holds everywhere: who says that something failed returns a negative code.
#ifndef Q2_ANALYZER_H
#define Q2_ANALYZER_H

#include "base/error.h"

// No function, as analyzers follow calls to some depth only.
#define q2_negative(call)            \
    ({                               \
        int q2_code = (call);        \
        if (q2_code >= 0)            \
            __builtin_unreachable(); \
        q2_code;                     \
    })

#define q2_fail(...) q2_negative(q2_fail(__VA_ARGS__))
#define q2_fail_errno(...) q2_negative(q2_fail_errno(__VA_ARGS__))
#define q2_fail_memory(...) q2_negative(q2_fail_memory(__VA_ARGS__))
#define q2_context(...) q2_negative(q2_context(__VA_ARGS__))
#define q2_hint(...) q2_negative(q2_hint(__VA_ARGS__))

#endif
