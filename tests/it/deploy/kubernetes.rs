//! The manifests of deploy/kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Ground, ROOT, Run};
use crate::compose::profiles::settings;
use crate::compose::{sync, text, words};
use crate::faults::servers::skip;

const FOLDER: &str = "deploy/kubernetes";
const BASE: [&str; 3] = ["base/migrate.yaml", "base/front.yaml", "base/worker.yaml"];
const COMPONENTS: [&str; 3] = [
    "components/keda/scaledobject.yaml",
    "components/network-policy/policies.yaml",
    "components/ingress/ingress.yaml",
];
const SECRETS: &str = "/run/secrets/snapbridge";
const SETTINGS: &str = "/etc/snapbridge";

fn python(script: &str, arguments: &[&Path]) -> Result<Vec<u8>, String> {
    let output = Command::new("python3").args(["-c", script]).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// All documents of YAML files. `None` (said aloud): nothing here reads YAML.
fn documents(files: &[std::path::PathBuf]) -> Option<Vec<Value>> {
    let script = "import json, sys, yaml\n\
                  print(json.dumps([d for f in sys.argv[1:] for d in yaml.safe_load_all(open(f)) if d]))";
    let files: Vec<&Path> = files.iter().map(|file| file.as_path()).collect();
    match python(script, &files) {
        Ok(json) => Some(serde_json::from_slice(&json).expect("JSON")),
        Err(error) if error.contains("No module named 'yaml'") || error.contains("os error 2") => {
            skip("python3 with PyYAML is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn at(name: &str) -> std::path::PathBuf {
    Path::new(ROOT).join(FOLDER).join(name)
}

fn base() -> Option<Vec<Value>> {
    documents(&BASE.map(at))
}

fn name_of(document: &Value) -> &str {
    text(&document["metadata"]["name"])
}

fn of_kind<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

/// The pods that are made: name, and their specification.
fn pods(documents: &[Value]) -> Vec<(&str, &Value)> {
    let made = documents
        .iter()
        .filter(|document| document["spec"]["template"].is_object());
    made.map(|document| (name_of(document), &document["spec"]["template"]))
        .collect()
}

fn container(pod: &Value) -> &Value {
    let containers = pod["spec"]["containers"].as_array().expect("containers");
    let [one] = &containers[..] else {
        panic!("{containers:?}")
    };
    one
}

/// What a pod runs, with the paths of this machine in the place of its mounts.
fn run(ground: &Ground, name: &str, pod: &Value) -> Run {
    let container = container(pod);
    let here = ground.folder.path().display().to_string();
    let variables = container["env"].as_array().expect("variables").iter();
    let environment = variables.map(|variable| {
        let value = text(&variable["value"]);
        let value = value.replace(SECRETS, &here).replace(SETTINGS, &here);
        (text(&variable["name"]).to_owned(), value)
    });
    // A Job's pod ends by itself.
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    Run {
        name: name.to_owned(),
        arguments: words(&container["args"]),
        environment: environment.collect(),
        grace: Duration::from_secs(grace),
    }
}

/// The seconds of a probe.
fn seconds(probe: &Value, name: &str) -> u64 {
    probe[name].as_u64().unwrap_or_else(|| panic!("{name}: {probe}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pod_runs_and_a_sync_passes_through() {
    let Some(documents) = base() else { return };
    let Some(ground) = Ground::lay().await else { return };
    let pods: BTreeMap<&str, &Value> = pods(&documents).into_iter().collect();
    let names: Vec<&str> = pods.keys().copied().collect();
    assert_eq!(names, ["snapbridge-front", "snapbridge-migrate", "snapbridge-worker"]);
    let run = |name: &str| run(&ground, name, pods[name]);
    let said = ground.run(&run("snapbridge-migrate")).await;
    assert!(said.contains("applied now"), "{said}");
    let mut running = Vec::new();
    for name in ["snapbridge-front", "snapbridge-worker"] {
        let process = ground.start(&run(name)).await;
        for probe in ["readinessProbe", "livenessProbe"] {
            let get = &container(pods[name])[probe]["httpGet"];
            assert_eq!(get["port"], "admin", "{name}");
            let answer = process.look(text(&get["path"])).await;
            assert_eq!(answer.map(|(status, _)| status), Some(200), "{name}: {get}");
        }
        running.push(process);
    }
    sync(ground.folder.path(), &running[0].url, &ground.crm).await;

    // KEDA looks at queues that there are.
    let scaled = self::documents(&[at(COMPONENTS[0])]).expect("YAML");
    let triggers = scaled
        .iter()
        .filter_map(|document| document["spec"]["triggers"].as_array())
        .flatten();
    let asked: BTreeSet<String> = triggers
        .map(|trigger| text(&trigger["metadata"]["queueName"]).to_owned())
        .collect();
    let queues = ground.rabbit.control(&["-q", "list_queues", "name"]).await;
    let lanes = queues.lines().filter(|queue| {
        contacts::Lane::ALL
            .iter()
            .any(|lane| queue.ends_with(&format!(".{lane}")))
    });
    assert_eq!(asked, lanes.map(str::to_owned).collect());
    for process in running {
        process.stop().await;
    }
}

#[test]
fn pods_are_shut_in_and_leave_the_service_before_they_end() {
    let Some(documents) = base() else { return };
    for (name, pod) in pods(&documents) {
        let (spec, container) = (&pod["spec"], container(pod));
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        let pod_rules = &spec["securityContext"];
        assert_eq!(pod_rules["runAsNonRoot"], true, "{name}");
        assert_eq!(pod_rules["runAsUser"], 65532, "{name}: as in the image");
        assert_eq!(pod_rules["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        let rules = &container["securityContext"];
        let shut_in = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}
        });
        assert_eq!(*rules, shut_in, "{name}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        let variables = container["env"].as_array().expect("variables");
        for variable in variables {
            assert!(
                !text(&variable["value"]).contains("://"),
                "{name}: {variable} may hold a password"
            );
        }
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{name}");
        // The key file is refused if others may read it; fsGroup adds the group's bit.
        let modes: Vec<&Value> = spec["volumes"]
            .as_array()
            .expect("volumes")
            .iter()
            .map(|volume| &volume["secret"]["defaultMode"])
            .collect();
        assert!(modes.contains(&&json!(0o400)), "{name}: {modes:?}");
    }
    let deployed: Vec<&Value> = of_kind(&documents, "Deployment").collect();
    let front = deployed
        .iter()
        .find(|document| name_of(document) == "snapbridge-front")
        .expect("fronts");
    let drain = variables(container(&front["spec"]["template"]))["SNAPBRIDGE_HTTP__DRAIN"].clone();
    let drain = settings(&BTreeMap::from([("SNAPBRIDGE_HTTP__DRAIN".to_owned(), drain)]))
        .http
        .drain;
    let probe = &container(&front["spec"]["template"])["readinessProbe"];
    let seen = seconds(probe, "periodSeconds") * seconds(probe, "failureThreshold");
    assert!(
        drain > Duration::from_secs(2 * seen),
        "{drain:?}: a pod must be seen to go within {seen} s"
    );
    assert_eq!(
        front["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 0,
        "no front less while another comes"
    );
    for document in deployed {
        let probe = &container(&document["spec"]["template"])["livenessProbe"];
        assert_eq!(
            probe["httpGet"]["path"], "/healthz",
            "a store that is away is no reason to restart"
        );
    }
}

fn variables(container: &Value) -> BTreeMap<String, String> {
    let variables = container["env"].as_array().into_iter().flatten();
    let pair = |variable: &Value| (text(&variable["name"]).to_owned(), text(&variable["value"]).to_owned());
    variables.map(pair).collect()
}

/// Every name that one document uses of another.
#[test]
fn names_and_labels_lead_somewhere() {
    let files: Vec<_> = BASE.iter().chain(&COMPONENTS).map(|name| at(name)).collect();
    let Some(documents) = documents(&files) else { return };
    let pods = pods(&documents);
    let labelled = |labels: &Value| {
        let labels = labels.as_object().expect("labels");
        let has = |pod: &Value| {
            labels
                .iter()
                .all(|(name, value)| pod["metadata"]["labels"][name] == *value)
        };
        pods.iter().find(|(_, pod)| has(pod)).map(|(_, pod)| *pod)
    };
    let ports = |pod: &Value| -> Vec<Value> {
        let ports = container(pod)["ports"].as_array().into_iter().flatten();
        ports.map(|port| port["name"].clone()).collect()
    };
    for document in &documents {
        let (kind, spec) = (text(&document["kind"]), &document["spec"]);
        match kind {
            "Deployment" => assert!(labelled(&spec["selector"]["matchLabels"]).is_some()),
            "PodDisruptionBudget" => assert!(labelled(&spec["selector"]["matchLabels"]).is_some()),
            "Service" => {
                let pod = labelled(&spec["selector"]).expect("pods");
                assert!(ports(pod).contains(&spec["ports"][0]["targetPort"]));
            }
            "NetworkPolicy" => {
                let pod = labelled(&spec["podSelector"]["matchLabels"]).expect("pods");
                let rules = spec["ingress"].as_array().into_iter().flatten();
                let allowed = rules.flat_map(|rule| rule["ports"].as_array().expect("ports"));
                for port in allowed {
                    assert!(ports(pod).contains(&port["port"]), "{port}");
                }
            }
            "HorizontalPodAutoscaler" | "ScaledObject" => {
                let target = &spec["scaleTargetRef"]["name"];
                let mut deployed = of_kind(&documents, "Deployment");
                assert!(
                    deployed.any(|document| document["metadata"]["name"] == *target),
                    "{target}"
                );
            }
            "Ingress" => {
                let service = &spec["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"];
                assert!(of_kind(&documents, "Service").any(|document| document["metadata"]["name"] == *service));
            }
            "Job" | "TriggerAuthentication" => {}
            other => panic!("{other} is looked at by nothing here"),
        }
    }
    // Who is scaled by another does not say how many there are.
    let front = of_kind(&documents, "Deployment").find(|document| name_of(document) == "snapbridge-front");
    assert!(front.expect("fronts")["spec"]["replicas"].is_null());
}

/// What `kubectl apply -k` would send. `None` (said aloud): kubectl is not installed; Debian has none that reads components.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn rendered(folder: &str) -> Option<Vec<Value>> {
    let output = Command::new("kubectl")
        .args(["kustomize"])
        .arg(at(folder))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: kubectl is not installed, so nothing is rendered");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rendered.yaml");
    std::fs::write(&file, output.stdout).expect("written");
    documents(&[file])
}

#[test]
fn kustomize_renders_base_and_example() {
    let (Some(base), Some(example)) = (rendered("base"), rendered("overlays/example")) else {
        return;
    };
    for documents in [&base, &example] {
        let maps: Vec<&Value> = of_kind(documents, "ConfigMap").collect();
        let [map] = maps[..] else { panic!("{maps:?}") };
        let file = text(&map["data"]["snapbridge.toml"]);
        let source = process::settings::Source::text(file);
        assert!(process::settings::Settings::load(&source).is_ok(), "{file}");
        for (name, pod) in pods(documents) {
            // Generated names have reached the pods.
            let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
            assert!(
                volumes
                    .iter()
                    .any(|volume| volume["configMap"]["name"] == map["metadata"]["name"]),
                "{name}"
            );
        }
    }
    let of = |name: &str| {
        let mut deployed = of_kind(&example, "Deployment");
        deployed
            .find(|document| name_of(document) == name)
            .expect("a deployment")
    };
    assert!(
        of("snapbridge-worker")["spec"]["replicas"].is_null(),
        "KEDA says how many"
    );
    for (name, pod) in pods(&example) {
        assert!(
            text(&container(pod)["image"]).starts_with("registry.example.com/snapbridge:"),
            "{name}"
        );
    }
    let front = variables(container(&of("snapbridge-front")["spec"]["template"]));
    let front: BTreeMap<String, String> = front.into_iter().filter(|(name, _)| name.contains("_HTTP__")).collect();
    let http = settings(&front).http;
    assert!(http.require_https && !http.trusted_proxies.is_empty());
}

/// A Python that has PyPI's `kubernetes-validate`, which brings the schemas of Kubernetes.
fn validator() -> Option<String> {
    let python = std::env::var("SNAPBRIDGE_TEST_KUBERNETES_VALIDATE").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python)
        .args(["-c", "import kubernetes_validate"])
        .output();
    if there.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    skip("pip install kubernetes-validate, or name a Python that has it in SNAPBRIDGE_TEST_KUBERNETES_VALIDATE");
    None
}

#[test]
fn the_schemas_of_kubernetes_take_every_document() {
    let files: Vec<_> = BASE.iter().chain(&COMPONENTS).map(|name| at(name)).collect();
    let (Some(python), Some(mut documents)) = (validator(), documents(&files)) else {
        return;
    };
    documents.extend(rendered("overlays/example").unwrap_or_default());
    // KEDA's kinds are its own.
    documents.retain(|document| !text(&document["apiVersion"]).starts_with("keda.sh/"));
    let wrong = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"port": 80}
    });
    let folder = tempfile::tempdir().expect("a folder");
    let script = "import json, sys, kubernetes_validate as v\n\
                  for d in json.load(open(sys.argv[1])): v.validate(d, '1.30', strict=True)";
    let check = |documents: &[Value]| {
        let file = folder.path().join("documents.json");
        std::fs::write(&file, serde_json::to_vec(documents).expect("JSON")).expect("written");
        let output = Command::new(&python)
            .args(["-c", script])
            .arg(file)
            .output()
            .expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (well, said) = check(&documents);
    assert!(well, "{said}");
    assert!(!check(&[wrong]).0, "a key that there is not would be found");
}
