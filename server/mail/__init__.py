"""Mail: messages, templates, the connection pool and a catcher. A library: it takes plain arguments."""
