"""SCIM 2.0 as this service has it: resources, requests and answers. Pure."""
