"""axe-core in an open page: what it finds. Stricter than it is by default in two things: see `_SETUP`."""

from playwright.sync_api import Page

from tests.audit.conftest import module

# Contrast 4.5 for large text too, and targets of 24 px, which axe leaves out by default.
_SETUP = """
() => {
  const contrastRatio = { normal: { expected: 4.5 }, large: { expected: 4.5 } };
  const options = {
    ignoreUnicode: true, ignoreLength: false, ignorePseudo: false, boldValue: 700, boldTextPt: 14, largeTextPt: 18,
    contrastRatio, pseudoSizeThreshold: 0.25, shadowOutlineEmMax: 0.2, textStrokeEmMin: 0.03,
  };
  axe.configure({ checks: [{ id: "color-contrast", options }] });
}
"""
_RUN = """
async () => {
  const rules = { "target-size": { enabled: true } };
  const found = await axe.run(document, { rules, preload: false, resultTypes: ["violations", "incomplete"] });
  const lines = (results) => results.flatMap(({ id, nodes }) => nodes.map(
    ({ html, failureSummary }) => `${id}: ${html.slice(0, 160)}: ${failureSummary.replace(/\\s+/g, " ")}`));
  const contrast = found.incomplete.filter(({ id }) => id === "color-contrast").flatMap(({ nodes }) => nodes);
  const others = found.incomplete.filter(({ id }) => id !== "color-contrast");
  return { wrong: lines([...found.violations, ...others]), unsure: contrast.map(({ target }) => target.join(" ")) };
}
"""


# What fades from one colour to the next has neither while it does.
_SETTLE = """
() => {
  document.body.getBoundingClientRect();
  for (const animation of document.getAnimations()) {
    if (animation.effect.getComputedTiming().endTime < Infinity) animation.finish();
  }
}
"""


def load(page: Page) -> None:
    """Puts axe into the page, past its policy: the page itself is left as strict as it is."""
    page.evaluate(module("axe-core/axe.min.js").read_text(encoding="utf-8"))
    page.evaluate(_SETUP)


def findings(page: Page) -> tuple[list[str], list[str]]:
    """What is wrong, and the selectors of texts whose contrast axe cannot tell. `load` comes first."""
    page.evaluate(_SETTLE)
    found = page.evaluate(_RUN)
    return found["wrong"], found["unsure"]
