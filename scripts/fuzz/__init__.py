"""Hostile files for every reader of rexport: the table of readers, mutations of good files, and the judge."""
