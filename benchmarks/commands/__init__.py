"""The subcommands of ``rbench``, one a file; click and standard output are used only here."""
