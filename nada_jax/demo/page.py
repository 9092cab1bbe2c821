"""The page: a header and the tabs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import gradio as gr

from nada_jax.demo import figures
from nada_jax.demo.site import Site
from nada_jax.demo.tabs import adapt, compare, edit, moving, sample, stylise, transfer


class Tab(NamedTuple):
    """A tab: its title, its name in addresses and jobs, and what puts its controls there."""

    title: str
    name: str
    build: Callable[[Site], None]


TABS: tuple[Tab, ...] = (
    Tab("Sample", "sample", sample.build),
    Tab("Stylise", "stylise", stylise.build),
    Tab("Edit", "edit", edit.build),
    Tab("Compare", "compare", compare.build),
    Tab("Moving", "moving", moving.build),
    Tab("Transfer", "transfer", transfer.build),
    Tab("Adapt", "adapt", adapt.build),
)

# No font of another server, and what the line of status needs.
FONTS = {"font": ("system-ui", "sans-serif"), "font_mono": ("ui-monospace", "monospace")}
CSS = """
.nada-error { color: var(--error-text-color, #b91c1c); font-weight: 600; overflow-wrap: anywhere; }
.nada-status { overflow-wrap: anywhere; }
.nada-status progress { vertical-align: middle; }
.gradio-container { --block-info-text-color: var(--neutral-600); --body-text-color-subdued: var(--neutral-600); }
.dark .gradio-container, .dark.gradio-container { --block-info-text-color: var(--neutral-300);
  --body-text-color-subdued: var(--neutral-300); --checkbox-border-color: var(--neutral-400); }
"""
# On a phone more tabs fit before the menu.
CSS += """
@media (max-width: 640px) { .tab-container button { padding: 0 5px !important; font-size: 0.8rem !important; } }
[id$="-preview"]:not(:has(img)) { display: none !important; }
"""
CSS += figures.CSS


def theme() -> gr.themes.Base:
    """Gradio's default look with the fonts of the visitor's system."""
    return gr.themes.Default(**FONTS)


def build(site: Site, tabs: Sequence[Tab] = TABS) -> gr.Blocks:
    """Makes the page.

    Args:
      site: the page's common part.
      tabs: what it shows, from the left.
    """
    demo_settings = site.settings.demo
    with gr.Blocks(title="nada_jax", analytics_enabled=False) as demo:
        gr.Markdown(
            "# nada_jax\nA generator that learns new looks from words alone. "
            f"What you make is yours alone, and is deleted after {demo_settings.hours:g} hours, or earlier where all "
            f"results together take more than {demo_settings.disk_megabytes:,.0f} MB: the oldest go first."
        )
        with gr.Tabs():
            for tab in tabs:
                with gr.Tab(tab.title, id=tab.name):
                    tab.build(site)
    return demo
