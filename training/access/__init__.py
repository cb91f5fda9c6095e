"""Access: rights of users, scopes of groups, and client keys."""
