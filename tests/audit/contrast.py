"""Contrast by the picture, for texts over drawings and gradients, of which axe cannot tell the background.

The texts are made invisible, and what is left is what stands behind them.
"""

import base64

from playwright.sync_api import Page

LEAST = 4.5
# A hairline that crosses a text makes it no harder to read.
MOST_BELOW = 0.01

_HIDE = """
(selectors) => selectors.flatMap((selector) => [...document.querySelectorAll(selector)]).map((element) => {
  const style = getComputedStyle(element);
  const property = element instanceof SVGElement ? "fill" : "color";
  const boxes = [];
  for (const node of element.childNodes) {
    if (node.nodeType !== Node.TEXT_NODE || !node.data.trim()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    boxes.push(...range.getClientRects());
  }
  if (element.matches("select, input, textarea")) {
    const { x, y, width, height } = element.getBoundingClientRect();
    const [left, right] = [parseFloat(style.paddingLeft), parseFloat(style.paddingRight)];
    boxes.push(new DOMRect(x + left, y + height / 4, width - left - right, height / 2));
  }
  const found = {
    name: `${selector(element)} “${element.textContent.trim().slice(0, 40)}”`,
    colour: style[property],
    boxes: boxes.map(({ x, y, width, height }) => [x + scrollX, y + scrollY, width, height].map(Math.round)),
  };
  element.style.setProperty("transition", "none", "important");
  element.style.setProperty(property, "transparent", "important");
  return found;
  function selector({ tagName, id, className }) {
    return `${tagName.toLowerCase()}${id && `#${id}`}${typeof className === "string" && className && `.${className}`}`;
  }
})
"""
_SHOW = """
(selectors) => selectors.flatMap((selector) => [...document.querySelectorAll(selector)]).forEach(({ style }) => {
  for (const property of ["color", "fill", "transition"]) style.removeProperty(property);
})
"""
_COMPARE = """
async ({ picture, texts, least, mostBelow }) => {
  const image = new Image();
  image.src = `data:image/png;base64,${picture}`;
  await image.decode();
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
  const part = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * part(r / 255) + 0.7152 * part(g / 255) + 0.0722 * part(b / 255);
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const ink = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return light(context.getImageData(0, 0, 1, 1).data);
  };
  const inks = texts.map(({ colour }) => ink(colour));
  context.drawImage(image, 0, 0);
  return texts.flatMap(({ name, boxes }, at) => {
    let [all, below, worst] = [0, 0, 21];
    for (const [x, y, width, height] of boxes) {
      if (!width || !height) continue;
      const { data } = context.getImageData(x, y, width, height);
      for (let i = 0; i < data.length; i += 4) {
        const found = ratio(inks[at], light(data.subarray(i, i + 3)));
        all += 1;
        below += found < least;
        worst = Math.min(worst, found);
      }
    }
    return below > mostBelow * all ? [`contrast down to ${worst.toFixed(2)} for ${name}`] : [];
  });
}
"""


def pale(page: Page, selectors: list[str]) -> list[str]:
    """The texts whose contrast is too low anywhere but in a hairline, a line each."""
    if not selectors:
        return []
    texts = page.evaluate(_HIDE, selectors)
    picture = base64.b64encode(page.screenshot(full_page=True, animations="disabled")).decode()
    page.evaluate(_SHOW, selectors)
    desk = page.context.new_page()  # a page without a policy, to look at the picture in
    found: list[str] = desk.evaluate(
        _COMPARE, {"picture": picture, "texts": texts, "least": LEAST, "mostBelow": MOST_BELOW}
    )
    desk.close()
    return found
