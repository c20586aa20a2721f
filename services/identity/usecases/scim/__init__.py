"""What directories do by SCIM, and how Admins let them."""
