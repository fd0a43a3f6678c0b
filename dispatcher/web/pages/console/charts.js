// Draws the charts of a page with uPlot. The numbers are those of the table in each figure: whoever cannot see a chart reads these.
"use strict";
(() => {
  const DRAWN = "drawn";
  const DASHES = [[], [10, 4], [3, 3], [10, 4, 3, 4]];
  const MARGIN = 1800; // seconds on both sides of a single value
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // A moment on the clock of the reader, in the language of the page.
  function text(at, zone, parts) {
    const locale = document.documentElement.lang === "en" ? "en-GB" : document.documentElement.lang;
    return new Intl.DateTimeFormat(locale, { timeZone: zone, hourCycle: "h23", ...parts }).format(new Date(at * 1000));
  }

  function numbers(figure) {
    const heads = [...figure.querySelectorAll("th[data-series]")];
    const rows = [...figure.querySelectorAll("tr[data-at]")];
    const value = (cell) => (cell.dataset.count === "" ? null : Number(cell.dataset.count)); // null: nothing to measure
    const columns = heads.map((head, place) => rows.map((row) => value(row.querySelectorAll("td")[place])));
    return { heads, data: [rows.map((row) => Number(row.dataset.at)), ...columns] };
  }

  function draw(figure) {
    const plot = figure.querySelector(".plot");
    const { heads, data } = numbers(figure);
    plot.replaceChildren();
    if (data[0].length === 0) return;
    plot.classList.add(DRAWN);
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    const count = (value) => (value === null ? "–" : value.toLocaleString("en").replaceAll(",", "\u202f"));
    const series = heads.map((head, place) => ({
      label: head.textContent,
      stroke: colour(`chart-${head.dataset.series}`),
      dash: DASHES[place % DASHES.length], // lines differ by more than their colour
      width: 2,
      value: (_, value) => count(value),
      points: { show: true, size: 8, filter: alone },
    }));
    const zone = figure.dataset.zone;
    const moment = (_, at) => (at === null ? "–" : text(at, zone, { dateStyle: "short", timeStyle: "short" }));
    const options = {
      width: plot.clientWidth,
      height: 260,
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone),
      scales: {
        x: { range: (chart, low, high) => (chart.data[0].length === 1 ? [low - MARGIN, low + MARGIN] : [low, high]) },
        y: { range: (_, low, high) => [0, Math.max(1, high * 1.05)] },
      },
      series: [{ label: figure.querySelector("th").textContent, value: moment }, ...series],
      axes: [
        { ...axis, ...dates(zone) },
        { ...axis, size: 64, values: (_, splits) => splits.map((value) => (Number.isInteger(value) ? count(value) : "")) },
      ],
    };
    const chart = new uPlot(options, data, plot);
    new ResizeObserver(() => {
      if (chart.root.isConnected && plot.clientWidth > 0) chart.setSize({ width: plot.clientWidth, height: 260 });
    }).observe(plot);
  }

  // The values that no line shows, because there is none before or after them.
  function alone(chart, place) {
    const values = chart.data[place];
    const known = (at) => values[at] !== null && values[at] !== undefined;
    return [...values.keys()].filter((at) => known(at) && !known(at - 1) && !known(at + 1));
  }

  // The labels of the axis: times of a day, and its date where the day begins.
  function dates(zone) {
    const day = (at) => text(at, zone, { day: "numeric", month: "short" });
    const time = (at) => text(at, zone, { hour: "2-digit", minute: "2-digit" });
    return { values: (_, splits) => splits.map((at) => (time(at) === "00:00" ? day(at) : time(at))), space: 70 };
  }

  const drawAll = () => document.querySelectorAll("figure.chart").forEach(draw);
  drawAll();
  new MutationObserver(drawAll).observe(document.getElementById("main"), { childList: true }); // the page was updated
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
