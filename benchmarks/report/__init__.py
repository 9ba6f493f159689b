"""Results as text: columns, sections, wording, terminal, Markdown and CSV."""
