"""What the configuration means: routes with their policy, lanes, limits, scopes. Pure."""
