"use strict";
// Draws the figures in the page's colours, again whenever those change. Colours in a figure are
// names; style.css says what they are.
(() => {
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const printed = window.matchMedia("print");
  const night = window.matchMedia("(prefers-color-scheme: dark)");
  const hidden = new Set();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const coloured = (value, key) => {
    if (Array.isArray(value)) return value.map((each) => coloured(each));
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, k)]));
    }
    return (key === "color" || key === "fillcolor") && typeof value === "string" ? colour(value) : value;
  };
  const axis = (own) => ({
    automargin: true, fixedrange: true, gridcolor: colour("grid"), linecolor: colour("rule"), zeroline: false,
    tickfont: { size: 12, color: colour("muted") }, ...coloured(own ?? {}),
    ...(own?.title ? { title: { ...own.title, font: { size: 13, color: colour("muted") }, standoff: 10 } } : {}),
  });

  function draw(plot) {
    const { data, layout, height } = specs[plot.dataset.name];
    const traces = coloured(data).map((trace) => ({
      ...trace, visible: !hidden.has(plot.dataset.name + " " + trace.legendgroup),
    }));
    const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") };
    Plotly.react(plot, traces, {
      ...coloured(layout), height, width: plot.clientWidth, font, showlegend: false, hovermode: "closest",
      dragmode: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { bgcolor: colour("wash"), bordercolor: colour("rule"), font: { color: colour("ink") } },
      margin: { l: 52, r: 12, t: 12, b: 48, ...layout.margin },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    }, { displayModeBar: false, scrollZoom: false, doubleClick: false });
  }

  const plots = [...document.querySelectorAll(".plot")];
  const seen = () => plots.filter((plot) => plot.clientWidth > 0);
  const all = () => seen().forEach(draw);
  for (const key of document.querySelectorAll("button.key")) {
    key.addEventListener("click", () => {
      const of = key.dataset.figure + " " + key.dataset.group;
      const shown = hidden.delete(of) || !hidden.add(of);
      key.setAttribute("aria-pressed", String(shown));
      draw(document.getElementById("figure-" + key.dataset.figure));
    });
  }
  for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", all);
  new ResizeObserver(all).observe(document.querySelector("main"));
  night.addEventListener("change", all);
  printed.addEventListener("change", all);
  window.addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    all();
  });
  all();
})();
