"""Who may do what: scopes of groups, and client keys."""
