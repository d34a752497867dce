//! What the demo found out, for `--json`.

use super::instance::Stats;
use serde::Serialize;
use serde_json::Value;

/// The whole demo.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DemoReport {
    /// Whether everything worked.
    pub ok: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// One entry per scenario.
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ScenarioReport {
    /// Its name, as `--scenario` takes it.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// Whether every step worked.
    pub ok: bool,
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// Counters of each router at the end.
    pub routers: Vec<RouterReport>,
    /// What ended the scenario early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One command and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Where.
    pub host: String,
    /// What, as a person would type it.
    pub command: String,
    /// Whether it did what it should.
    pub ok: bool,
    /// What it did, in a few words.
    pub summary: String,
    /// All that was measured.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// The end of a router.
#[derive(Clone, Debug, Serialize)]
pub struct RouterReport {
    /// Its name.
    pub name: String,
    /// Whether every packet is accounted for.
    pub balanced: bool,
    /// Its counters.
    pub stats: Stats,
}
