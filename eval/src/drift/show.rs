//! A change taken apart, as tables and in a sentence.

use super::{Cell, Drift};
use crate::render::{self, Table, difference, percent, points, score};
use crate::stats::paired::Difference;

impl Drift {
    /// Its tables: the parts, and the runs that they were computed from.
    pub fn tables(&self) -> Vec<Table> {
        vec![self.parts_table(), self.cells_table()]
    }

    /// Notes, and what the mark of few clusters says.
    fn told(&self) -> Vec<String> {
        self.notes.iter().cloned().chain(render::legend(&self.tables())).collect()
    }

    /// As text, notes behind the tables.
    pub fn text(&self) -> String {
        render::text(&self.tables(), Some(self.verdict()), &self.told())
    }

    /// As Markdown, notes as a list.
    pub fn markdown(&self) -> String {
        render::markdown(&self.tables(), Some(self.verdict()), &self.told())
    }

    /// What changed the score, in a sentence.
    pub fn verdict(&self) -> String {
        let change = points(self.change.value, self.change.interval);
        let causes: Vec<&str> = self.attributed_to.iter().map(|cause| cause.name()).collect();
        let by = match causes.split_last() {
            None => "no part of it is beyond chance".to_string(),
            Some((last, [])) => format!("by the {last}"),
            Some((last, others)) => format!("by the {} and the {last}", others.join(", the ")),
        };
        format!("The score changed by {change} points: {by}.")
    }

    fn parts_table(&self) -> Table {
        let interval = format!("points [{} % interval]", self.confidence * 100.0);
        let mut table = Table::new("What changed Pass@1", &["", &interval, "p", "share, %"]);
        let p = |p: Option<f64>| p.map_or_else(|| "–".to_string(), |p| format!("{p:.4}"));
        let mut row = |name: &str, of: &Difference, share: Option<f64>| {
            let share = share.map_or_else(|| "–".to_string(), percent);
            table.rows.push(vec![name.to_string(), difference(of), p(of.p_value), share]);
        };
        row("all", &self.change, None);
        for part in &self.parts {
            row(part.cause.name(), &part.difference, part.share);
        }
        if let Some(interaction) = &self.interaction {
            row("interaction of model and web", interaction, None);
        }
        table
    }

    fn cells_table(&self) -> Table {
        let columns = ["policy", "web", "run", "by the first judge, %", "by the second judge, %", "missed calls, %"];
        let mut table = Table::new("Pass@1", &columns);
        for Cell { policy, web, run_id, by_first_judge, by_second_judge, misses } in &self.cells {
            table.rows.push(vec![
                (*policy).to_string(),
                (*web).to_string(),
                run_id.clone(),
                score(by_first_judge.as_ref()),
                score(by_second_judge.as_ref()),
                misses.map_or_else(|| "–".to_string(), |misses| percent(misses.rate())),
            ]);
        }
        table
    }
}
