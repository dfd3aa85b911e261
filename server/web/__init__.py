"""The API and its few pages. Knows HTTP; knows no SQL and no SMTP."""
