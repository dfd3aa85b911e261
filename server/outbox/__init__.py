"""The outbox: mails as rows, and the clock that sends them. Knows no HTTP and no templates."""
