"""The command `giblet-hpc`: which module has which command, and one line on each."""

from __future__ import annotations

import os
from importlib import import_module

import click

from giblet_hpc import __version__
from giblet_hpc.cli.common import Group

COMMANDS = {
    "cancel": ("manage:cancel_command",
               "Ask a run to stop at its next step boundary, with a checkpoint."),
    "cluster": ("cluster:cluster", "Describe the cluster that jobs are queued on."),
    "compare": ("inspect:compare_command",
                "Show runs side by side: the settings in which they differ, and their scores."),
    "config": ("config:config", "Show and check configs, and what they may hold."),
    "doctor": ("doctor:doctor_command",
               "Look for what would stop a run; each finding has a remedy."),
    "drill": ("manage:drill_command",
              "Cause a fault on a live run, and report how many steps it cost."),
    "evaluate": ("evaluate:evaluate_command",
                 "Look at what a checkpoint predicts and reconstructs: pictures, films, sounds, a "
                 "page."),
    "export": ("manage:export_command",
               "Write a run's weights into FILE (safetensors), for other programs."),
    "health": ("inspect:health_command",
               "Say whether a run's training can succeed, and what speaks against it; exit 1 when "
               "it cannot."),
    "image": ("image:image", "Build, check and enter the container image."),
    "init": ("init:init_command",
             "Look at the files in FOLDER and write a study config with comments."),
    "inspect": ("diagnose:inspect",
                "Look for what is wrong with a study or a network: each finding has a number and a "
                "remedy."),
    "lesion": ("lesion:lesion_command",
               "Silence regions, voxels or units of an evaluated run, and show what becomes of the "
               "decoded stimulus."),
    "logs": ("inspect:logs_command", "Print the log of a run's last attempt, or of another one."),
    "plan": ("plan:plan_command",
             "Show memory, traffic and time of each parallel mode, and which is chosen."),
    "remove": ("manage:remove_command", "Delete a run that nobody works on."),
    "report": ("evaluate:report_command",
               "Write an evaluated run's report.html anew, with CITATION.md and CITATION.bib "
               "beside it."),
    "reproduce": ("manage:reproduce_command",
                  "Train and evaluate a finished run again under a new name; say whether it comes "
                  "out the same."),
    "resubmit": ("manage:resubmit_command",
                 "Queue what is left of a run, from its last checkpoint."),
    "run": ("submit:run_command", "Run a stage here and now, in the foreground."),
    "runs": ("inspect:runs_command", "List runs, a line each."),
    "scores": ("inspect:scores_command", "Print the scores of an evaluated run."),
    "status": ("inspect:status_command", "Show where runs stand and what to type next."),
    "store": ("store:store", "Look at, verify and tidy a feature store."),
    "submit": ("submit:submit_command",
               "Queue a stage of a run, or all of them as a pipeline."),
    "synthesize": ("synthesize:synthesize_command",
                   "Write a synthetic study with a known answer into FOLDER."),
    "tensorboard": ("inspect:tensorboard_command",
                    "Serve training curves on loopback and print the ssh line that reaches them."),
    "watch": ("inspect:watch_command",
              "Watch runs live: curves, pace, GPUs, last events; by default those not over."),
    "weights": ("weights:weights_command",
                "List the trained weights that a config needs, and whether they are here; exit 1 "
                "if not."),
}  # fmt: skip
"""Module and name of each command, and its first line of help: a list of commands loads none."""


class LazyGroup(Group):
    """Loads a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"giblet_hpc.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="giblet-hpc")
def main() -> None:
    """Naturalistic-movie fMRI: from a film and scans to a scored model.

    Tab completion for bash: eval "$(_GIBLET_HPC_COMPLETE=bash_source giblet-hpc)"
    """
    from giblet_hpc.runs.environment import SAFE_PATH

    # For every Python that is started from here, by submitit too.
    os.environ[SAFE_PATH] = "1"
