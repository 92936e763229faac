"""What the configuration means: routes with their policy, backends, limits, scopes. Pure."""
