//! A result as one page that needs nothing else: no network, no fonts, no libraries. Bars and tables are HTML, so that
//! they are there without a script; curves are drawn by a small one from the figures in the page.
//!
//! Invariant: every text of a result passes through `escape` or the JSON of `curves`, so no name or command can become
//! markup.

mod bars;
mod curves;
mod walk;

use std::fmt::Write;

use anyhow::Result;

use crate::figures;
use crate::markdown::{scaled, short};
use crate::report::{Contender, Report, Spread};

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The sections in their order: a name for links, and what the list of contents says.
const SECTIONS: [(&str, &str); 8] = [
    ("ratios", "Ratios"),
    ("walk", "Curves"),
    ("time", "Over time"),
    ("percentiles", "Percentiles"),
    ("cpu", "CPU and memory"),
    ("figures", "All figures"),
    ("machine", "Machine and limits"),
    ("commands", "Commands"),
];

/// Text as it may stand between tags and inside quoted attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// A contender's name as it stands in text.
fn display(name: &str) -> &str {
    match name {
        "kafka" => "Kafka",
        "tidemill" => "Tidemill",
        other => other,
    }
}

/// The place of a contender's colour and dashes in the style: the known ones look the same on every page.
fn slot(index: usize, name: &str) -> usize {
    match name {
        "kafka" => 0,
        "floor" => 1,
        "tidemill" => 2,
        _ => [0, 2, 3, 4, 5].get(index % 5).copied().unwrap_or(3),
    }
}

/// A contender with its place in the style.
struct Seat<'a> {
    one: &'a Contender,
    slot: usize,
}

/// What every section is written from.
struct View<'a> {
    report: &'a Report,
    seats: Vec<Seat<'a>>,
}

impl<'a> View<'a> {
    fn new(report: &'a Report) -> View<'a> {
        let seats = report.contenders.iter().enumerate();
        let seats = seats.map(|(index, one)| Seat { one, slot: slot(index, &one.name) }).collect();
        View { report, seats }
    }

    /// The contender that the page is about: the last that is neither the base nor the floor.
    fn primary(&self) -> Option<&Seat<'a>> {
        let others = self.seats.get(1..).unwrap_or(&[]);
        others.iter().rev().find(|seat| seat.one.name != "floor").or(others.last())
    }

    fn titled(&self, workload: &str) -> String {
        let row = self.report.workloads.iter().find(|row| row.name == workload);
        escape(row.map_or(workload, |row| &row.title))
    }
}

/// The whole page.
pub fn page(report: &Report) -> Result<String> {
    let view = View::new(report);
    let title = escape(&title(&view));
    let mut body = String::new();
    head(&view, &title, &mut body);
    body.push_str("<main>\n");
    bars::ratios(&view, &mut body);
    walk::curves(&view, &mut body);
    over_time(&view, &mut body);
    percentiles(&view, &mut body);
    bars::cost(&view, &mut body);
    figures(&view, &mut body);
    machine(report, &mut body);
    commands(report, &mut body);
    body.push_str("</main>\n");
    let data = curves::data(&view)?;
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{body}<script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n"
    ))
}

fn title(view: &View<'_>) -> String {
    let full = |one: &Contender| format!("{} {}", display(&one.name), one.version).trim().to_owned();
    match (view.seats.first(), view.primary()) {
        (Some(base), Some(primary)) => format!("{} beside {}", full(primary.one), full(base.one)),
        (Some(only), None) => match view.report.parameters().as_slice() {
            [] => format!("{}, measured", full(only.one)),
            axes => format!("{}, walked over {}", full(only.one), axes.join(" and ")),
        },
        _ => "A result without contenders".to_owned(),
    }
}

fn head(view: &View<'_>, title: &str, body: &mut String) {
    let report = view.report;
    let _ = write!(body, "<header>\n<h1>{title}</h1>\n");
    if let Some(verdict) = verdict(view) {
        let _ = writeln!(body, "<p class=\"verdict\">{}</p>", escape(&verdict));
    }
    let settings = &report.settings;
    let turns = if settings.turns == 1 { "one turn".to_owned() } else { format!("{} turns", settings.turns) };
    let layout = match settings.layout {
        crate::host::Layout::Split => "broker on one CPU, load on another",
        crate::host::Layout::Shared => "broker and load on all CPUs",
    };
    let _ = writeln!(
        body,
        "<p class=\"soft\">{} · {turns} of at most {} s for each workload · layout {}: {layout} · {}</p>",
        escape(&report.machine.date),
        short(settings.seconds).trim_end_matches('0').trim_end_matches('.'),
        settings.layout.name(),
        escape(&format!("{}, {} CPUs", report.machine.processor, report.machine.cpus)),
    );
    body.push_str("<nav>");
    let is_there = |id: &str| match id {
        "ratios" => view.primary().is_some(),
        "walk" => !report.parameters().is_empty(),
        _ => true,
    };
    for (id, name) in SECTIONS.iter().filter(|(id, _)| is_there(id)) {
        let _ = write!(body, "<a href=\"#{id}\">{name}</a>");
    }
    body.push_str("</nav>\n");
    if report.build.profile != "release" {
        body.push_str("<p class=\"note\">This was no release build: it tells nothing about speed.</p>\n");
    }
    if let Some(others) = report.others_cores().filter(|cores| *cores >= 0.1) {
        let _ = writeln!(
            body,
            "<p class=\"note\">Others used {others:.1} of this machine’s {} CPUs meanwhile. Ratios are the result; times and \
             rates are not, and long tails least of all.</p>",
            report.machine.cpus,
        );
    }
    body.push_str(
        "<noscript><p class=\"note\">The curves need JavaScript; bars and tables do not.</p></noscript>\n",
    );
    body.push_str("</header>\n");
}

/// The sentence that a reader in a hurry reads.
fn verdict(view: &View<'_>) -> Option<String> {
    let (report, primary) = (view.report, view.primary()?);
    let rows = report.workloads.iter();
    let ratios: Vec<(f64, Option<f64>)> =
        rows.filter_map(|row| Some((report.ratio(row, &primary.one.name)?.median, row.goal))).collect();
    let all = Spread::of(ratios.iter().map(|(ratio, _)| *ratio).collect())?;
    let (base, name) = (display(report.base()), display(&primary.one.name));
    let times = |ratio| bars::times(ratio, None);
    let range = match ratios.len() {
        1 => times(all.median),
        _ => format!("{} to {}", times(all.min), times(all.max)),
    };
    let mut text = format!("For the same work {base} needs {range} times what {name} needs");
    let with_goal: Vec<bool> = ratios.iter().filter_map(|(ratio, goal)| Some(*ratio >= (*goal)?)).collect();
    let reached = with_goal.iter().filter(|reached| **reached).count();
    match with_goal.len() {
        0 => text.push('.'),
        count => drop(write!(text, "; {name} reaches {reached} of {count} goals.")),
    }
    Some(text)
}

fn section(id: &str, heading: &str, explained: &str, body: &mut String) {
    let _ = write!(
        body,
        "<section id=\"{id}\">\n<h2>{}</h2>\n<p class=\"soft\">{explained}</p>\n",
        escape(heading)
    );
}

/// The contenders' lines, as the charts below draw them.
fn line_legend(view: &View<'_>, body: &mut String) {
    body.push_str("<ul class=\"legend\">");
    for seat in &view.seats {
        let (slot, name) = (seat.slot, escape(display(&seat.one.name)));
        let _ = write!(
            body,
            "<li class=\"s{slot}\"><svg width=\"30\" height=\"12\" data-slot=\"{slot}\" aria-hidden=\"true\"></svg>{name}</li>"
        );
    }
    body.push_str("</ul>\n");
}

fn charts(view: &View<'_>, kind: &str, body: &mut String) {
    body.push_str("<div class=\"grid\">\n");
    for (index, row) in view.report.workloads.iter().enumerate() {
        let _ = writeln!(
            body,
            "<figure data-chart=\"{kind}\" data-workload=\"{index}\"><figcaption>{}</figcaption><div class=\"plot\"></div>\
             <div class=\"tip\"></div></figure>",
            escape(&row.title)
        );
    }
    body.push_str("</div>\n</section>\n");
}

fn over_time(view: &View<'_>, body: &mut String) {
    let explained =
        "Each contender's middle run, sampled during the measured phase; its other turns are thin lines.";
    section("time", "Over time", explained, body);
    body.push_str("<fieldset class=\"choice\" aria-label=\"what is shown\"></fieldset>\n");
    line_legend(view, body);
    charts(view, "time", body);
}

fn percentiles(view: &View<'_>, body: &mut String) {
    let open = match view.report.settings.rate {
        Some(rate) => format!("Open loop, {} requests/s: a request counts from the moment it was meant to be sent.", scaled(rate)),
        None => "Closed loop: every slot is kept busy, so this is latency at each contender's own peak, not at the same \
                 load."
            .to_owned(),
    };
    let explained = format!(
        "How long answers took, or where somebody reads at the log’s end, how long batches took until they had them; all turns added. {open}"
    );
    section("percentiles", "Latency percentiles", &explained, body);
    line_legend(view, body);
    charts(view, "curve", body);
}

fn figures(view: &View<'_>, body: &mut String) {
    let explained = "Medians over the turns. Bytes are those of whole record batches; a GB is 10⁹ bytes. Resident memory is \
                     the most since the process began.";
    section("figures", "All figures", explained, body);
    body.push_str("<div class=\"scroll\"><table>\n<tr><th>workload</th><th class=\"left\"></th>");
    let used = |column: &&figures::Column| view.report.runs.iter().any(|run| (column.of)(run).is_some());
    let columns: Vec<&figures::Column> = figures::all().filter(used).collect();
    for column in &columns {
        let _ = write!(body, "<th>{}</th>", column.head);
    }
    body.push_str("</tr>\n");
    for row in &view.report.workloads {
        let seats: Vec<&Seat<'_>> = view
            .seats
            .iter()
            .filter(|seat| view.report.runs_of(&row.name, &seat.one.name).next().is_some())
            .collect();
        for (at, seat) in seats.iter().enumerate() {
            body.push_str("<tr>");
            if at == 0 {
                let _ = write!(
                    body,
                    "<td class=\"title\" rowspan=\"{}\">{}</td>",
                    seats.len(),
                    view.titled(&row.name)
                );
            }
            let name = escape(display(&seat.one.name));
            let _ = write!(body, "<td class=\"name left s{}\"><i></i>{name}</td>", seat.slot);
            for column in &columns {
                let runs = view.report.runs_of(&row.name, &seat.one.name);
                let _ = write!(body, "<td>{}</td>", column.median(runs));
            }
            body.push_str("</tr>\n");
        }
    }
    body.push_str("</table></div>\n</section>\n");
}

fn machine(report: &Report, body: &mut String) {
    let machine = &report.machine;
    section(
        "machine",
        "Machine and its limits",
        "What it was measured on, and what that can do at all.",
        body,
    );
    let build = format!("{} {} ({})", report.build.version, report.build.commit, report.build.profile);
    let facts = [
        ("processor", format!("{}, {} CPUs", machine.processor, machine.cpus)),
        ("memory", format!("{} GiB", machine.memory_gib)),
        ("kernel", format!("Linux {}", machine.kernel)),
        ("file system of the data", machine.file_system.clone()),
        ("Java", if machine.java.is_empty() { "none".to_owned() } else { machine.java.clone() }),
        ("harness", build),
    ];
    body.push_str("<dl>");
    for (name, value) in facts {
        let _ = write!(body, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    body.push_str("</dl>\n<h3>Limits, measured in the same run</h3>\n");
    if report.limits.is_empty() {
        body.push_str("<p>They were not measured.</p>\n");
    } else {
        body.push_str("<div class=\"scroll\"><table>\n<tr><th>what</th><th></th><th>CPU of the broker’s side</th></tr>\n");
        for limit in &report.limits {
            let cpu = limit.cpu_s_per_gb.map_or(String::new(), |cpu| format!("{} s/GB", short(cpu)));
            let (title, unit) = (escape(&limit.title), escape(&limit.unit));
            let value = short(limit.value);
            let _ = writeln!(
                body,
                "<tr><td class=\"title\">{title}</td><td>{value} {unit}</td><td>{cpu}</td></tr>"
            );
        }
        body.push_str("</table></div>\n");
    }
    body.push_str("</section>\n");
}

fn commands(report: &Report, body: &mut String) {
    let settings = &report.settings;
    let explained = "What repeats it, and how each contender was started.";
    section("commands", "Commands and settings", explained, body);
    let _ = writeln!(body, "<pre>{}</pre>", escape(&report.machine.command));
    let pace = settings.rate.map_or("closed loop".to_owned(), |rate| format!("{} requests/s", scaled(rate)));
    let _ = writeln!(
        body,
        "<p class=\"soft\">{} turns that count after {} that warmed up; each run warms up for {} s and is measured for {} s or \
         {} MB; {pace}.</p>",
        settings.turns,
        settings.warmup_turns,
        settings.warmup_seconds,
        settings.seconds,
        settings.bytes_max / 1_000_000,
    );
    for one in &report.contenders {
        let name = format!("{} {}", display(&one.name), one.version);
        let _ = writeln!(body, "<h3>{}</h3>", escape(name.trim()));
        if one.command.is_empty() {
            body.push_str("<p>It was running before.</p>\n");
        } else {
            let _ = writeln!(body, "<pre>{}</pre>", escape(&one.command));
        }
        if !one.settings.is_empty() {
            let lines = escape(&one.settings.join("\n"));
            let _ =
                writeln!(body, "<details><summary>server.properties</summary><pre>{lines}</pre></details>");
        }
    }
    body.push_str("</section>\n");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::report::tests::small;

    #[test]
    fn a_page_has_every_section_and_asks_for_nothing_from_elsewhere() {
        let page = page(&small()).unwrap();
        for (id, name) in SECTIONS.into_iter().filter(|(id, _)| *id != "walk") {
            assert_eq!(page.matches(&format!("<section id=\"{id}\">")).count(), 1, "{id}");
            assert!(page.contains(&format!("<a href=\"#{id}\">{name}</a>")), "{id}");
        }
        for part in [
            "Tidemill 4.3.1 beside Kafka 4.3.1",
            "reaches 2 of 2 goals",
            "goal 6.5",
            "loopback TCP",
            "x=&lt;y&gt;",
        ] {
            assert!(page.contains(part), "{part}");
        }
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert_eq!(page.matches("data-chart=\"time\"").count(), 2);
        assert_eq!(page.matches("data-chart=\"curve\"").count(), 2);
    }

    #[test]
    fn no_text_of_a_result_becomes_markup() {
        let mut report = small();
        report.workloads.first_mut().unwrap().title = "<img onerror=\"x\">'".to_owned();
        report.contenders.last_mut().unwrap().name = "</script><i>".to_owned();
        let page = page(&report).unwrap();
        assert!(!page.contains("<img") && !page.contains("</script><i>") && !page.contains("</script><b>"));
        assert!(page.contains("&lt;img onerror=&quot;x&quot;&gt;&#39;"));
        assert_eq!(page.matches("</script>").count(), 2, "the page's own two");
        assert_eq!(escape("a&<>\"'"), "a&amp;&lt;&gt;&quot;&#39;");
    }

    #[test]
    fn one_contender_alone_has_a_page_without_ratios() {
        let mut report = small();
        report.contenders.truncate(1);
        report.runs.retain(|run| run.contender == "kafka");
        let page = page(&report).unwrap();
        assert!(!page.contains("id=\"ratios\"") && !page.contains("href=\"#ratios\""));
        assert!(!page.contains("#walk"), "nothing was walked");
        assert!(page.contains("Kafka 4.3.1, measured") && page.contains("id=\"figures\""));
    }

    #[test]
    fn a_result_without_runs_still_makes_a_page() {
        let mut report = small();
        report.runs.clear();
        report.limits.clear();
        assert!(page(&report).unwrap().contains("They were not measured."));
    }
}
