"""What was found: claims and verdicts, tables, figures, and the pages of the reports."""
