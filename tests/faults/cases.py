# SPDX-License-Identifier: MIT
"""The command lines of the fault matrix. What a case says of its files:

  uses     files that it finds, and that must stay what they are
  changes  files that it finds, and may change: their guest's data are the old or the new
           ones, in the active state and in each snapshot
  mixes    the same, but each sector for itself is old or new
  makes    files that it may leave, if they are whole
  undo     an undo file: with it the repair can be taken back
  thin     it makes very many calls, of which one in so many is enough
"""

from images import KEY, LUKS, encrypted


class Case:
    def __init__(self, line, uses="", changes="", mixes="", makes="", undo=None, codes=(1,),
                 program="qcow2", thin=1, threads=False, stdin=None, talks=False, masks=(), code=0):
        self.line = line
        self.words = [self.word(w) for w in line.split("|" if "|" in line else None)]
        self.uses = uses.split()
        self.changes = changes.split()
        self.mixes = mixes.split()
        self.makes = makes.split()
        self.undo = undo
        self.codes = codes
        self.program = program
        self.threads = threads
        self.thin = thin
        self.stdin = stdin
        self.talks = talks
        # What a command of io took, and how fast that was.
        self.masks = (*masks, r"\d[0-9.]* ops; .*") if talks else masks
        self.code = code

    @property
    def name(self):
        return self.line + (" (threads)" if self.threads else "")

    @staticmethod
    def word(w):
        if w == "KEY":
            return KEY
        if w.startswith("OPTS:"):
            return encrypted(w[5:])
        if w == "''":
            return ""
        return w.replace("LUKS", LUKS)


COMPARE = {"codes": (2, 3, 4)}

CASES = [
    # create
    Case("create -f qcow2 x 1M", makes="x"),
    Case("create -f qcow2 -o compat=0.10,cluster_size=4k x 1M", makes="x"),
    Case("create -f qcow2 -o preallocation=metadata,cluster_size=512 x 256k", makes="x"),
    Case("create -f qcow2 -o preallocation=falloc,cluster_size=4k x 256k", makes="x"),
    Case("create -f qcow2 -o preallocation=full,extended_l2=on,cluster_size=16k x 256k",
         makes="x"),
    Case("create -f qcow2 -b base.qcow2 -F qcow2 x", uses="base.qcow2", makes="x"),
    Case("create -f qcow2 -o data_file=x.data,data_file_raw=on x 256k", makes="x x.data"),
    Case("create -f qcow2 --object KEY -o LUKS x 64k", makes="x"),
    Case("create -f raw x 256k", makes="x"),
    Case("create -f raw -o preallocation=full x 256k", makes="x"),
    # info
    Case("info a.qcow2", uses="a.qcow2"),
    Case("info --output=json bm.qcow2", uses="bm.qcow2"),
    Case("info --backing-chain --output=json top.qcow2",
         uses="top.qcow2 over.qcow2 base.qcow2"),
    Case("info luks.qcow2", uses="luks.qcow2"),
    Case("info src.raw", uses="src.raw"),
    # check
    Case("check a.qcow2", uses="a.qcow2"),
    Case("check --output=json --details broken.qcow2", uses="broken.qcow2", code=2),
    Case("check --read-data --backing-chain top.qcow2",
         uses="top.qcow2 over.qcow2 base.qcow2", codes=(1, 2)),
    Case("vet --output=json plain.qcow2", uses="plain.qcow2"),
    Case("vet over.qcow2", uses="over.qcow2 base.qcow2", code=2),
    Case("check -r leaks leaky.qcow2", changes="leaky.qcow2"),
    Case("check -r all broken.qcow2", changes="broken.qcow2", thin=37),
    Case("check -r all --undo-file undo broken.qcow2", changes="broken.qcow2", undo="undo",
         thin=37),
    Case("check --undo mended.undo mended.qcow2", uses="mended.undo", changes="mended.qcow2"),
    Case("check -r all --dry-run broken.qcow2", uses="broken.qcow2", code=2, thin=37),
    Case("check -r all dirty.qcow2", changes="dirty.qcow2"),
    Case("check bm.qcow2", uses="bm.qcow2"),
    Case("check ext.qcow2", uses="ext.qcow2"),
    # recover
    Case("recover --size 256k lost.qcow2 x", uses="lost.qcow2", makes="x"),
    Case("recover -O raw --output=json --size 256k lost.qcow2 x", uses="lost.qcow2", makes="x"),
    Case("recover --dry-run beheaded.qcow2", uses="beheaded.qcow2"),
    Case("recover -q -p -b base.qcow2 -F qcow2 beheaded.qcow2 x", uses="beheaded.qcow2 base.qcow2",
         makes="x"),
    Case("recover -O raw -b base.qcow2 -F qcow2 beheaded.qcow2 x",
         uses="beheaded.qcow2 base.qcow2", makes="x"),
    # amend
    Case("amend -o compat=0.10 a.qcow2", changes="a.qcow2"),
    Case("amend -o compat=1.1 v2.qcow2", changes="v2.qcow2"),
    Case("amend -o refcount_bits=64 a.qcow2", changes="a.qcow2"),
    Case("amend -o lazy_refcounts=on a.qcow2", changes="a.qcow2"),
    Case("amend --object KEY --object secret,id=new,data=x -o encrypt.new-secret=new,"
         "encrypt.iter-time=10,encrypt.state=active --image-opts OPTS:luks.qcow2",
         changes="luks.qcow2"),
    # snapshot
    Case("snapshot -l a.qcow2", uses="a.qcow2"),
    Case("snapshot -l --output=json a.qcow2", uses="a.qcow2"),
    Case("snapshot -c two a.qcow2", changes="a.qcow2"),
    Case("snapshot -c two v2.qcow2", changes="v2.qcow2"),
    Case("snapshot -a one a.qcow2", changes="a.qcow2"),
    Case("snapshot -a one v2.qcow2", changes="v2.qcow2"),
    Case("snapshot -d one a.qcow2", changes="a.qcow2"),
    Case("snapshot -d one v2.qcow2", changes="v2.qcow2"),
    Case("snapshot -d one lazy.qcow2", changes="lazy.qcow2"),
    Case("snapshot -c two dirty.qcow2", changes="dirty.qcow2"),
    # resize
    Case("resize plain.qcow2 4M", changes="plain.qcow2"),
    Case("resize a.qcow2 4M", changes="a.qcow2"),
    Case("resize --shrink plain.qcow2 128k", changes="plain.qcow2"),
    Case("resize --preallocation=metadata plain.qcow2 2M", changes="plain.qcow2"),
    Case("resize --preallocation=full plain.qcow2 1100k", changes="plain.qcow2"),
    Case("resize --preallocation=falloc -f raw src.raw 300k", changes="src.raw"),
    Case("resize --shrink -f raw src.raw 100k", changes="src.raw"),
    # convert
    Case("convert -O qcow2 src.raw x", uses="src.raw", makes="x"),
    Case("convert -O qcow2 -m 4 src.raw x", uses="src.raw", makes="x", threads=True),
    Case("convert -c -O qcow2 -o cluster_size=4k src.raw x", uses="src.raw", makes="x"),
    Case("convert -c -O qcow2 -o cluster_size=4k,compression_type=zstd src.raw x",
         uses="src.raw", makes="x"),
    Case("convert -c -m 4 -O qcow2 -o cluster_size=4k src.raw x", uses="src.raw",
         makes="x", threads=True),
    Case("convert -O raw a.qcow2 x", uses="a.qcow2", makes="x"),
    Case("convert -O raw z.qcow2 x", uses="z.qcow2", makes="x"),
    Case("convert -O raw -S 0 -t none src.raw x", uses="src.raw", makes="x"),
    Case("convert -C -O raw src.raw x", uses="src.raw", makes="x"),
    Case("convert -C -O qcow2 a.qcow2 x", uses="a.qcow2", makes="x"),
    Case("convert -l one -O qcow2 -o compat=0.10 a.qcow2 x", uses="a.qcow2", makes="x"),
    Case("convert -t writeback -O qcow2 -o preallocation=metadata,cluster_size=4k "
         "src.raw x", uses="src.raw", makes="x"),
    Case("convert -B base.qcow2 -F qcow2 -O qcow2 -o cluster_size=4k over.qcow2 x",
         uses="over.qcow2 base.qcow2", makes="x"),
    Case("convert --bitmaps -O qcow2 -o cluster_size=4k bm.qcow2 x", uses="bm.qcow2",
         makes="x"),
    Case("convert -O qcow2 --object KEY -o LUKS small.raw x", uses="small.raw", makes="x"),
    Case("convert -O raw --object secret,id=sec0,file=word --image-opts OPTS:luks.qcow2 x",
         uses="luks.qcow2 word", makes="x"),
    Case("convert -O qcow2 -o data_file=x.data,cluster_size=4k src.raw x", uses="src.raw",
         makes="x x.data"),
    Case("convert -n -O qcow2 src.raw a.qcow2", uses="src.raw", mixes="a.qcow2"),
    Case("convert -n -O qcow2 src.raw lazy.qcow2", uses="src.raw", mixes="lazy.qcow2"),
    Case("convert -n -O raw a.qcow2 src.raw", uses="a.qcow2", mixes="src.raw"),
    Case("convert --salvage -O raw a.qcow2 x", uses="a.qcow2", makes="x"),
    Case("convert -O raw a.qcow2 -", uses="a.qcow2"),
    Case("convert -O qcow2 - x", makes="x", stdin="src.raw", uses="src.raw"),
    # what copies from one image to another
    Case("commit over.qcow2", uses="", mixes="over.qcow2 base.qcow2"),
    Case("commit -d -b base.qcow2 top.qcow2", uses="over.qcow2 top.qcow2",
         mixes="base.qcow2"),
    Case("commit onraw.qcow2", mixes="onraw.qcow2 base.raw"),
    Case("rebase -b other.qcow2 -F qcow2 over.qcow2", uses="base.qcow2 other.qcow2",
         changes="over.qcow2"),
    Case("rebase -b base.qcow2 -F qcow2 top.qcow2", uses="base.qcow2 over.qcow2",
         changes="top.qcow2"),
    Case("rebase -b '' over.qcow2", uses="base.qcow2", changes="over.qcow2"),
    Case("rebase -c -b '' over.qcow2", uses="base.qcow2", changes="over.qcow2"),
    Case("rebase -u -b other.qcow2 -F qcow2 over.qcow2", uses="base.qcow2 other.qcow2",
         changes="over.qcow2"),
    Case("dd bs=4k count=20 skip=2 if=a.qcow2 of=x", uses="a.qcow2", makes="x"),
    Case("dd -O qcow2 bs=64k if=src.raw of=x", uses="src.raw", makes="x"),
    Case("compare src.raw other.qcow2", uses="src.raw other.qcow2", **COMPARE),
    Case("compare a.qcow2 z.qcow2", uses="a.qcow2 z.qcow2", **COMPARE),
    Case("compare -s a.qcow2 src.raw", uses="a.qcow2 src.raw", code=1, **COMPARE),
    # bitmap
    Case("bitmap --add bm.qcow2 b2", changes="bm.qcow2"),
    Case("bitmap --remove bm.qcow2 b0", changes="bm.qcow2"),
    Case("bitmap --clear bm.qcow2 b0", changes="bm.qcow2"),
    Case("bitmap --merge b1 bm.qcow2 b0", changes="bm.qcow2"),
    Case("bitmap --disable bm.qcow2 b0", changes="bm.qcow2"),
    # looking
    Case("map bm.qcow2", uses="bm.qcow2"),
    Case("map --output=json top.qcow2", uses="top.qcow2 over.qcow2 base.qcow2"),
    Case("map --output=json src.raw", uses="src.raw"),
    Case("measure -O qcow2 src.raw", uses="src.raw"),
    Case("measure --output=json -O qcow2 bm.qcow2", uses="bm.qcow2"),
    Case("measure -O qcow2 --size 1G"),
    # io and bench
    Case("io|-c|write -P 9 10k 20k|-c|read -P 9 10k 20k|-c|flush|a.qcow2",
         mixes="a.qcow2", talks=True),
    Case("io|-c|write -c -P 9 32k 4k|-c|write -z 64k 16k|-c|discard 0 8k|v2.qcow2",
         mixes="v2.qcow2", talks=True),
    Case("io|-c|write -P 9 10k 20k|-c|discard 64k 64k|ext.qcow2", mixes="ext.qcow2",
         talks=True),
    Case("io|-c|write -P 9 10k 20k|df.qcow2", mixes="df.qcow2 df.data", talks=True),
    Case("io|-c|write -P 9 10k 20k|bm.qcow2", mixes="bm.qcow2", talks=True),
    Case("io|-s|-c|write -P 9 10k 20k|-c|read 0 64k|a.qcow2", uses="a.qcow2", talks=True),
    Case("io|--object|KEY|--image-opts|-c|write -P 9 10k 20k|" + encrypted("luks.qcow2"),
         mixes="luks.qcow2", talks=True),
    Case("io|-c|write -s word 10k 20k|a.qcow2", uses="word", mixes="a.qcow2", talks=True),
    Case("io lazy.qcow2", mixes="lazy.qcow2", stdin="script", uses="script", talks=True),
    Case("bench -c 20 -d 4 -s 4k -w --pattern 7 --flush-interval 5 a.qcow2", mixes="a.qcow2",
         masks=(r"\d+\.\d+",)),
    Case("bench -c 20 -s 4k a.qcow2", uses="a.qcow2", masks=(r"\d+\.\d+",)),
]
