"""[dev]: which files `escala dev` watches."""

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
    """Files that cause the replicas to be replaced when they change.

    Patterns match file names ("*.py") or paths below the project ("app/*.csv"). escala.toml and each `env_file` are
    always watched.
    """
    ignore: Many[FilePattern] = ()
    """Exceptions from `watch`, such as files that the app itself writes."""
