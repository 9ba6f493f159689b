"""The commands of ``rbench``; click and standard output are used only here."""
