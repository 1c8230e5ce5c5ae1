// Draws the curves of the page from the figures that lie in it. Bars and tables need no script.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const DASHES = ["7 3", "2 3", "", "9 3 2 3", "4 2", "1 2"];
  const short = v => {
    const a = Math.abs(v);
    if (a >= 999500) return +(v / 1e6).toPrecision(3) + "M";
    if (a >= 9995) return +(v / 1e3).toPrecision(3) + "k";
    return a === 0 ? "0" : String(+v.toPrecision(3));
  };
  const time = us => us >= 999500 ? +(us / 1e6).toPrecision(3) + " s"
    : us >= 999.5 ? +(us / 1e3).toPrecision(3) + " ms" : +us.toPrecision(3) + " µs";
  const percent = v => +(v * 100).toPrecision(3) + " %";
  const sum = (a, b) => a.map((v, i) => v + b[i]);
  const one = key => series => [series[key]];
  // What can be shown over time: its columns of a series, how a value is written, and the kind of axis.
  const METRICS = [
    { name: "requests", axis: "requests/s", of: one("requests_per_s"), say: short },
    { name: "volume", axis: "MB/s", of: s => [sum(s.produced_mb_per_s, s.consumed_mb_per_s)], say: short },
    { name: "p50", axis: "p50 of each interval, log scale", of: one("p50_us"), say: time, log: true },
    { name: "p99", axis: "p99 of each interval, log scale", of: one("p99_us"), say: time, log: true },
    { name: "p99.9", axis: "p99.9 of each interval, log scale", of: one("p999_us"), say: time, log: true },
    { name: "longest", axis: "longest of each interval, log scale", of: one("max_us"), say: time, log: true },
    { name: "end to end p50", axis: "p50 of each interval, log scale", of: one("end_to_end_p50_us"), say: time, log: true },
    { name: "end to end p99", axis: "p99 of each interval, log scale", of: one("end_to_end_p99_us"), say: time, log: true },
    { name: "end to end p99.9", axis: "p99.9 of each interval, log scale", of: one("end_to_end_p999_us"), say: time, log: true },
    { name: "consumers' lag", axis: "records", of: one("lag_records"), say: short },
    { name: "broker CPU", axis: "share of one core", of: one("broker_cores"), say: percent },
    { name: "memory", axis: "resident MB, log scale", of: one("resident_mb"), say: v => short(v) + " MB", log: true },
    { name: "each shard", axis: "share of time on a CPU", of: s => s.shards.map(x => x.busy), say: percent, names: s => s.shards.map(x => x.name) },
    { name: "others' CPU", axis: "cores used by neither broker nor load", of: one("others_cores"), say: percent },
  ];
  const has = column => Boolean(column && column.some(v => v !== null));

  // Lines of a chart: {slot, name, x: [], y: [], main}.
  const overTime = (workload, metric) => workload.runs.flatMap(run => {
    const names = metric.names ? metric.names(run.series) : [];
    return metric.of(run.series).map((y, at) => {
      const who = data.contenders[run.contender];
      const name = who.name + (names[at] ? " " + names[at] : "");
      return { slot: who.slot, name, x: run.series.at_s, y, main: run.middle };
    }).filter(line => has(line.y) && (!metric.names || line.main));
  });
  const curves = workload => workload.curves.map(curve => {
    const who = data.contenders[curve.contender];
    return { slot: who.slot, name: who.name, x: curve.points.map(p => p[0]), y: curve.points.map(p => p[1]), main: true };
  });

  const linearTicks = (max, count) => {
    const rough = max / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= rough * 0.999);
    return Array.from({ length: Math.floor(max / step + 1e-9) + 1 }, (_, i) => i * step);
  };
  const logTicks = (low, high) => {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const m of [1, 2, 5]) ticks.push(m * 10 ** power);
    const inside = ticks.filter(t => t >= low * 0.999 && t <= high * 1.001);
    return inside.length > 6 ? inside.filter(t => Number.isInteger(+Math.log10(t).toFixed(6))) : inside;
  };
  const logBounds = values => {
    const low = Math.min(...values), high = Math.max(...values);
    const steps = [1, 2, 5, 10];
    const down = v => { const p = 10 ** Math.floor(Math.log10(v)); return Math.max(...steps.map(s => s * p).filter(s => s <= v * 1.0001)); };
    const up = v => { const p = 10 ** Math.floor(Math.log10(v)); return Math.min(...steps.map(s => s * p).filter(s => s >= v * 0.9999)); };
    return low === high ? [down(low) / 2, up(high) * 2] : [down(low), up(high)];
  };

  // Percentiles are drawn by how few are above them: 90 at 1, 99 at 2, 99.9 at 3.
  const share = x => { return "p" + +(100 * (1 - 10 ** -x)).toFixed(Math.max(0, Math.ceil(x) - 1)); };

  const draw = (figure, lines, options) => {
    const plot = figure.querySelector(".plot"), width = plot.clientWidth, height = plot.clientHeight;
    const left = 54, right = 14, top = 28, bottom = 36, w = width - left - right, h = height - top - bottom;
    const ys = lines.flatMap(line => line.y.filter(v => v !== null && (!options.log || v > 0)));
    if (ys.length === 0 || w < 40) { plot.innerHTML = "<p class=soft>Not measured.</p>"; return; }
    const xMax = Math.max(...lines.flatMap(line => line.x)) || 1;
    const [yLow, yHigh] = options.log ? logBounds(ys) : [0, Math.max(...ys) * 1.08 || 1];
    const X = v => left + v / xMax * w;
    const Y = options.log
      ? v => top + h - Math.log(Math.max(v, yLow) / yLow) / Math.log(yHigh / yLow) * h
      : v => top + h - v / yHigh * h;
    const yTicks = options.log ? logTicks(yLow, yHigh) : linearTicks(yHigh, 4);
    const xTicks = options.shares
      ? [0, 0.30103, 1, 2, 3, 4, 5, 6].filter(t => t <= xMax).filter(t => t !== 0.30103 || w / xMax > 95)
      : linearTicks(xMax, w > 300 ? 6 : 4);
    let svg = `<svg role="img" aria-label="${figure.querySelector("figcaption").textContent}: ${options.axis}">`;
    svg += `<text x="0" y="11">${options.axis}</text>`;
    for (const t of yTicks) {
      svg += `<line class="gridline" x1="${left}" x2="${left + w}" y1="${Y(t)}" y2="${Y(t)}"/>`;
      svg += `<text x="${left - 7}" y="${Y(t) + 4}" text-anchor="end">${options.say(t)}</text>`;
    }
    svg += `<line class="base" x1="${left}" x2="${left + w}" y1="${top + h}" y2="${top + h}"/>`;
    for (const t of xTicks) {
      const label = options.shares ? share(t) : short(t);
      svg += `<line class="base" x1="${X(t)}" x2="${X(t)}" y1="${top + h}" y2="${top + h + 4}"/>`;
      svg += `<text x="${X(t)}" y="${top + h + 17}" text-anchor="middle">${label}</text>`;
    }
    svg += `<text x="${left + w}" y="${height - 3}" text-anchor="end">${options.shares ? "percentile" : "seconds of the measured phase"}</text>`;
    // Thin lines first, so that the middle runs lie on top.
    for (const line of [...lines].sort((a, b) => a.main - b.main)) {
      let path = "", pen = "M";
      line.x.forEach((x, i) => {
        const y = line.y[i];
        if (y === null || y === undefined) { pen = "M"; return; }
        path += `${pen}${X(x).toFixed(1)},${Y(y).toFixed(1)}`;
        pen = "L";
      });
      svg += `<path class="s${line.slot}${line.main ? "" : " other"}" stroke-dasharray="${line.main ? DASHES[line.slot] : ""}" d="${path}"/>`;
    }
    svg += `<line class="cross" y1="${top}" y2="${top + h}"/></svg>`;
    plot.innerHTML = svg;
    const mains = lines.filter(line => line.main), cross = plot.querySelector(".cross"), tip = figure.querySelector(".tip");
    const hide = () => { cross.style.visibility = tip.style.visibility = "hidden"; };
    const nearest = (line, x) => line.x.reduce((best, v, i) => Math.abs(v - x) < Math.abs(line.x[best] - x) ? i : best, 0);
    plot.onpointerleave = hide;
    plot.onpointermove = event => {
      const at = event.clientX - plot.getBoundingClientRect().left;
      if (at < left || at > left + w) { hide(); return; }
      const x = (at - left) / w * xMax;
      cross.setAttribute("x1", at);
      cross.setAttribute("x2", at);
      const head = options.shares ? "p" + +(100 * (1 - 10 ** -x)).toFixed(Math.max(1, Math.ceil(x))) : x.toFixed(2) + " s";
      tip.replaceChildren(head, ...mains.map(line => {
        const i = nearest(line, x), row = document.createElement("div");
        row.className = "s" + line.slot;
        row.append(document.createElement("i"), `${line.name} ${line.y[i] === null ? "–" : options.say(line.y[i])}`);
        return row;
      }));
      cross.style.visibility = tip.style.visibility = "visible";
      tip.style.top = plot.offsetTop + top + 4 + "px";
      tip.style.left = (at > width / 2 ? at - tip.offsetWidth - 10 : at + 10) + "px";
    };
  };

  const choice = document.querySelector(".choice");
  const offered = METRICS.filter(metric => data.workloads.some(w => overTime(w, metric).some(line => line.y.some(v => v > 0))));
  offered.forEach((metric, at) => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "metric", checked: at === 0, onchange: () => { chosen = metric; all(); } });
    label.append(input, metric.name);
    choice.append(label);
  });
  let chosen = offered[0] || METRICS[0];
  const all = () => {
    for (const figure of document.querySelectorAll("figure[data-chart]")) {
      const workload = data.workloads[figure.dataset.workload];
      if (figure.dataset.chart === "time") draw(figure, overTime(workload, chosen), chosen);
      else draw(figure, curves(workload), { axis: "latency, log scale", say: time, log: true, shares: true });
    }
  };
  for (const sample of document.querySelectorAll("svg[data-slot]"))
    sample.innerHTML = `<path d="M0,6H30" fill="none" stroke="var(--c)" stroke-width="2.5" stroke-dasharray="${DASHES[sample.dataset.slot]}"/>`;
  let seen = 0;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== seen) { seen = document.body.clientWidth; all(); }
  }).observe(document.body);
})();
