"use strict";
// Draws the figures of the page; colours are CSS variables, so that they follow the reader's light or dark.
const figures = JSON.parse(document.getElementById("figures").textContent);
const touch = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page

function painted(value, styles) {
  if (typeof value === "string") {
    const found = /^var\((--[a-z0-9-]+)\)$/.exec(value);
    return found ? styles.getPropertyValue(found[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map((part) => painted(part, styles));
  if (value !== null && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, painted(part, styles)]));
  return value;
}

function draw() {
  const styles = getComputedStyle(document.documentElement);
  const drawn = Object.entries(figures).map(([id, figure]) => {
    const { data, layout } = painted(figure, styles);
    if (touch) layout.dragmode = false;
    return Plotly.react(id, data, layout, { responsive: true, displayModeBar: false, doubleClick: "reset" });
  });
  return Promise.all(drawn);
}

draw().then(() => document.documentElement.setAttribute("data-drawn", Object.keys(figures).length));
for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", draw);
