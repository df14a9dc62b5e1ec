"""demo: the whole loop in one command."""

from pathlib import Path

import click

from edgehmn.cli.export import export_text
from edgehmn.cli.learning import personalisation_text
from edgehmn.cli.output import Outcome, Session, command
from edgehmn.cli.threads import one_thread_for_small

REFERENCE = "reference"  # of edgehmn.checkpoint, which reads NumPy: too early to choose its threads


@command("demo", "Export the reference model, personalise it on an emulated Cortex-M4, power-cycle it.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("build/demo/ref"), show_default=True,
    help="Folder to write the export to; what is learned goes beside it.",
)  # fmt: skip
def demo_command(session: Session, output: Path) -> Outcome:
    one_thread_for_small(REFERENCE)
    from edgehmn.demonstration import demonstrate

    d = demonstrate(output, session.note, session.progress)
    p = d.personalisation
    text = f"""
1  exported (measured on this host)
{export_text(d.export)}
   flash {d.memory["image_bytes"]:,} bytes; RAM while learning {d.memory["arena_bytes"]:,} bytes

2  ran
   {d.host_tokens_per_s:,.0f} tokens/s on this host (measured, one thread)
   {d.instructions_per_token:,.0f} instructions per token on the board (emulated Cortex-M4)
   {d.instructions_per_learned_token:,.0f} instructions per learned token

3  personalised on the board with the first half of a diary
{personalisation_text(p)}

4  saved, ended the emulator, started a new one, loaded
   {d.state}
   perplexity before the power cycle {p.after!r}
   perplexity after it               {d.after_power_cycle!r}
"""
    return Outcome(d.as_dict(), text.strip())
