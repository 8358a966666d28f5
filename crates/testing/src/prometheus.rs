//! A real Prometheus with rules, which scrapes what it is told to.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    http::{self, Reply},
    ports::free_port,
    stack::{Server, Stack},
};

/// Between two scrapes of a target, and between two evaluations of the rules.
const EVERY: &str = "500ms";
/// Between two questions to Prometheus.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for something to happen in it: some scrapes and evaluations, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a program of Debian's package `prometheus` is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|place| place.join(program)).find(|path| path.is_file())
}

/// Runs promtool in a folder.
pub fn promtool(folder: &str, arguments: &[&str]) -> Output {
    let program = find("promtool").expect("promtool on the PATH");
    Command::new(program).args(arguments).current_dir(folder).output().unwrap()
}

pub struct Prometheus {
    pub server: Server,
    port: u16,
    /// Prometheus reads the files in it again when they change.
    targets: PathBuf,
}

/// One series of an answer, with its latest value.
#[derive(Debug)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A rule, as Prometheus has evaluated it last.
#[derive(Debug, Deserialize)]
pub struct Rule {
    pub name: String,
    pub query: String,
    pub health: String,
    #[serde(default, rename = "lastError")]
    pub last_error: String,
}

/// An alert that is pending or firing.
#[derive(Debug, Deserialize)]
pub struct Alert {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub state: String,
}

impl Prometheus {
    /// Starts one with the text of a rules file; `folder` is its own.
    pub async fn start(stack: &Stack, folder: &Path, rules: &str) -> Self {
        let targets = folder.join("targets");
        fs::create_dir_all(&targets).unwrap();
        fs::write(folder.join("rules.yaml"), rules).unwrap();
        let config = json!({
            "global": {
                "scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY,
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "unnamed",
                "file_sd_configs": [{ "files": ["targets/*.json"], "refresh_interval": "1s" }],
            }],
        });
        // JSON is YAML.
        let file = folder.join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let port = free_port();
        let program = find("prometheus").expect("prometheus on the PATH");
        let argv = [
            program.display().to_string(),
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ];
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        let process = json!({ "argv": argv, "name": "prometheus", "ready": ready });
        Self { server: stack.start("process", process), port, targets }
    }

    /// Scrapes these ports of this machine from now on under the name of a job, and no others under
    /// that name.
    pub fn scrape(&self, job: &str, ports: &[u16], path: &str) {
        let targets: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let group = json!([{
            "targets": targets, "labels": { "job": job, "__metrics_path__": path },
        }]);
        // In one piece, or Prometheus may read half of it.
        let (new, file) = (self.targets.join("new"), self.targets.join(format!("{job}.json")));
        fs::write(&new, group.to_string()).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// How many jobs it is told to scrape.
    pub fn jobs(&self) -> usize {
        let files = fs::read_dir(&self.targets).unwrap();
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some()).count()
    }

    /// The instant value of an expression, or what is wrong with it.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, String> {
        let data = self.ask(&format!("query?query={}", escaped(expression))).await?;
        if data["resultType"] != "vector" {
            return Err(format!("{expression}: not a vector"));
        }
        let sample = |sample: &Value| Sample {
            labels: serde_json::from_value(sample["metric"].clone()).unwrap(),
            value: sample["value"][1].as_str().unwrap().parse().unwrap(),
        };
        Ok(data["result"].as_array().unwrap().iter().map(sample).collect())
    }

    /// The alerts of this moment.
    pub async fn alerts(&self) -> Vec<Alert> {
        serde_json::from_value(self.ask("alerts").await.unwrap()["alerts"].take()).unwrap()
    }

    /// All rules, recording ones included.
    pub async fn rules(&self) -> Vec<Rule> {
        let data = self.ask("rules").await.unwrap();
        let groups = data["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap().clone());
        rules.map(|rule| serde_json::from_value(rule).unwrap()).collect()
    }

    /// Waits until an expression has some series as its value.
    pub async fn until(&self, what: &str, expression: &str) -> Vec<Sample> {
        let found = async {
            loop {
                let found = self.query(expression).await.unwrap();
                if !found.is_empty() {
                    return found;
                }
                sleep(PAUSE).await;
            }
        };
        let found = timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{what}: still no {expression}"))
    }

    async fn ask(&self, target: &str) -> Result<Value, String> {
        // To HTTP/1.0, it answers without pieces.
        let request = format!("GET /api/v1/{target} HTTP/1.0\r\n\r\n");
        let reply: Reply = http::raw(self.port, request.into_bytes()).await;
        let mut answer = reply.json();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].take()),
            _ => Err(format!("{} {}", reply.status, reply.body)),
        }
    }
}

/// As a query of a URL has it.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
