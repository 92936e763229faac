"""[dev]: what `escala dev` follows."""

from escala.config.section import Section
from escala.config.types import FilePattern, Many


class DevSettings(Section):
    watch: Many[FilePattern] = (
        "*.py",
        "*.toml",
        "*.env",
        "*.yaml",
        "*.yml",
        "*.sql",
        "*.html",
        "*.js",
        "*.ts",
        "*.go",
        "*.rb",
    )
    """Files whose change replaces the replicas: patterns of names ("*.py") or of paths below the project ("app/*.csv").
    escala.toml and each `env_file` are followed always."""
    ignore: Many[FilePattern] = ()
    """Files among those that do not count, such as what the app writes itself."""
