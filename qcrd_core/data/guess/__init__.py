"""First settings for a file of questions: its columns, its answers, and the files that say so."""
