"""Model versions, which of them is live, and where their files are."""
