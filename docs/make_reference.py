"""Writes docs/reference/{config,cluster,cli,causes}.md from the schema, commands and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from giblet_hpc.causes.search import CAUSES
from giblet_hpc.cli.main import main
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig

FOLDER = Path(__file__).parent / "reference"


def cluster_page() -> str:
    return _page("Cluster profiles", "profile", Cluster.model_json_schema())


def config_page() -> str:
    return _page("Config", "run", RunConfig.model_json_schema())


def _page(heading: str, root: str, schema: dict[str, Any]) -> str:
    definitions = schema.get("$defs", {})
    lines = [f"# {heading}", "", "Made from the schema by `make docs`.", ""]

    def section(title: str, node: dict[str, Any]) -> None:
        lines.extend([f"## {title}", "", node.get("description", "").split("\n\n")[0], ""])
        lines.extend(["| field | default | meaning |", "|---|---|---|"])
        children = []
        for name, field in node["properties"].items():
            reference = _reference(field)
            meaning = field.get("description", "")
            if reference:
                children.append((f"{title}.{name}" if title != root else name, reference))
                meaning = meaning or definitions[reference].get("description", "")
            shown = f"`{field.get('default')}`"
            if "default" not in field and field.get("type") == "object":
                shown = "`{}`"
            if reference and isinstance(field.get("default"), dict):
                shown = "see below"
            elif reference and shown == "`None`" and "default" in field:
                shown = "`None`; see below"
            if name in node.get("required", []):
                shown = "required; see below" if reference else "required"
            lines.append(f"| `{name}` | {shown} | {' '.join(meaning.split()).replace('|', '/')} |")
        lines.append("")
        if others := _reference({"additionalProperties": node.get("additionalProperties", {})}):
            children.append((f"{title}.NAME", others))
        for child, reference in children:
            section(child, definitions[reference])

    section(root, schema)
    return "\n".join(lines).rstrip() + "\n"


def _reference(field: dict[str, Any]) -> str:
    nodes = [field, *field.get("anyOf", []), *field.get("allOf", [])]
    nodes += [field.get("items", {}), field.get("additionalProperties", {})]
    nodes += list(field.get("patternProperties", {}).values())
    found = [
        node["$ref"].rsplit("/", 1)[1]
        for node in nodes
        if isinstance(node, dict) and "$ref" in node
    ]
    return found[0] if found else ""


EXIT_STATUS = """Exit status: 0, done; 1, it did not work out here (a job that failed, an answer
that did not come, a finding that speaks against a run: the same command may succeed later); 2, what
was asked for has to be changed (a config, a file, an option)."""


def cli_page() -> str:
    lines = ["# Command line", "", "Made from the command line itself by `make docs`.", ""]
    lines += [EXIT_STATUS, ""]

    def command(path: list[str], item: click.Command) -> None:
        context = click.Context(
            item, info_name=" ".join(path), terminal_width=96, **main.context_settings
        )
        lines.extend([f"## {' '.join(path)}", "", "```text", item.get_help(context), "```", ""])
        for name in item.list_commands(context) if isinstance(item, click.Group) else []:
            child = item.get_command(context, name)
            assert child is not None
            command([*path, name], child)

    command(["giblet-hpc"], main)
    return "\n".join(lines).rstrip() + "\n"


ROLES = {
    "root": "Causes",
    "confirmation": "What goes with a cause, and counts where no cause is known",
    "cascade": "What only follows from another rank's end, and is never the cause",
}


def causes_page() -> str:
    lines = ["# Known causes of failures", ""]
    lines += ["Made from the tables in giblet_hpc/causes by `make docs`. Where several are read in "
              "the logs, the first of this list counts.", ""]  # fmt: skip
    for role, heading in ROLES.items():
        lines.extend([f"## {heading}", "", "| name | what `status` says | what to do | tries |",
                      "|---|---|---|---|"])  # fmt: skip
        for cause in CAUSES:
            if cause.role == role:
                tries = f"{cause.attempts}{', other nodes' if cause.of_node else ''}"
                cells = [f"`{cause.name}`", cause.reason, cause.remedy, tries]
                lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    (FOLDER / "config.md").write_text(config_page())
    (FOLDER / "cli.md").write_text(cli_page())
    (FOLDER / "cluster.md").write_text(cluster_page())
    (FOLDER / "causes.md").write_text(causes_page())
