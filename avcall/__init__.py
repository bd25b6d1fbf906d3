"""The application, and what both ends of a call share."""
