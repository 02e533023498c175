# SPDX-License-Identifier: MIT
# Shell completion: the program does the work, a script per shell asks it.

bashcompletiondir = $(with_bash_completion_dir)
zshcompletiondir = $(with_zsh_completion_dir)
fishcompletiondir = $(with_fish_completion_dir)
EXTRA_DIST += completion/qcow2.bash

dist_zshcompletion_DATA = completion/_qcow2
dist_fishcompletion_DATA = completion/qcow2.fish

# bash looks for a file that has the command's name.
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(bashcompletiondir)'
	$(INSTALL_DATA) $(srcdir)/completion/qcow2.bash '$(DESTDIR)$(bashcompletiondir)/qcow2'

uninstall-local:
	rm -f '$(DESTDIR)$(bashcompletiondir)/qcow2'
