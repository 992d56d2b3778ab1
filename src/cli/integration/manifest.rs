//! `integration manifest`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::civil::Date;
use jiff::{Timestamp, tz::TimeZone};
use process::settings::{Integration, Settings};
use serde_json::Value;
use talkdesk::config::Configuration;

use super::remark;
use crate::cli::typed::{Typed, pairs};
use crate::cli::{Failure, print, settings};
use crate::paperwork::configuration::{self, Described};
use crate::paperwork::examples::{Examples, Shown};
use crate::paperwork::letter::{self, Attachment};
use crate::paperwork::live::{self, Crm, Plan};
use crate::paperwork::manifest::{Contact, Customer, Manifest};
use crate::paperwork::{markdown, mask, pdf};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the integration
    name: String,
    /// Folder that NAME-manifest.md, .pdf and .eml are written into
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Overwrite files of an earlier run
    #[arg(long)]
    force: bool,

    /// The customer [default: integrations.NAME.client]
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Technical contact, "Name <address>" or "Name <address>; note"; repeat for more
    /// [default: integrations.NAME.client_contacts]
    #[arg(long = "contact", value_name = "CONTACT")]
    contacts: Vec<String>,
    /// Keybase user through whom secrets are exchanged [default: integrations.NAME.keybase_user]
    #[arg(long, value_name = "USER")]
    keybase_user: Option<String>,
    /// Whether Talkdesk should test in production [default: integrations.NAME.production_test]
    #[arg(long, value_enum)]
    production_test: Option<Answer>,
    /// The Talkdesk domain, such as acme.mytalkdesk.com [default: integrations.NAME.talkdesk_domain]
    #[arg(long, value_name = "HOST")]
    talkdesk_domain: Option<String>,
    /// What the integration is wanted for [default: integrations.NAME.use_case, else a sentence of our own]
    #[arg(long, value_name = "TEXT")]
    use_case: Option<String>,
    /// Page of the CRM's API documentation; repeat for more [default: integrations.NAME.api_docs]
    #[arg(long = "api-docs", value_name = "URL")]
    api_docs: Vec<String>,
    /// Date of the document [default: today, UTC]
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Date>,

    /// Live run against the configured CRM with these credentials; KEY=@FILE takes the value from a file
    ///
    /// The run has a budget of its own: its few calls come on top of those of a bridge that is running.
    #[arg(long = "auth", value_name = "KEY=VALUE", group = "source")]
    auth: Vec<Typed>,
    /// Live run against the configured CRM without credentials in the calls, for integrations of the type none
    #[arg(long, group = "source")]
    live: bool,
    /// Live run against a made-up CRM, for integrations with the connector "demo"
    #[arg(long, group = "source")]
    fake: bool,
    /// Examples from files: DIR/contact_sync.json and so on, as --save-examples writes them
    #[arg(long, value_name = "DIR", group = "source")]
    examples: Option<PathBuf>,
    /// Without examples
    #[arg(long, group = "source")]
    no_examples: bool,
    /// Execute each action once in the live run, although that writes into the CRM (--fake always does)
    #[arg(long, conflicts_with_all = ["fake", "examples", "no_examples"])]
    run_actions: bool,
    /// Show people as the CRM has them, instead of their shapes (Ixxx Mxxxxxxxx)
    #[arg(long, conflicts_with_all = ["fake", "examples", "no_examples"])]
    show_people: bool,
    /// Keep the examples as files, masked, to edit them and use them again
    #[arg(long, value_name = "DIR")]
    save_examples: Option<PathBuf>,

    /// Sender of the e-mail, "Name <address>" [default: the first technical contact]
    #[arg(long, value_name = "CONTACT")]
    from: Option<String>,
    /// Documentation of the CRM's API to attach to the e-mail; repeat for more
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
    /// TrueType font for letters outside Latin, Greek and Cyrillic; repeat for more
    #[arg(long = "font", value_name = "FILE.ttf")]
    fonts: Vec<PathBuf>,
    /// The bridge's secret, which is masked in the URLs unless it is given; @FILE takes it from a file
    #[arg(long, value_name = "SECRET|@FILE")]
    path_secret: Option<Typed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Answer {
    Yes,
    No,
}

/// Everything that can be known before anything is called.
struct Prepared {
    described: Described,
    customer: Customer,
    from: Contact,
    auth: BTreeMap<String, String>,
    fonts: Vec<Vec<u8>>,
    attachments: Vec<Attachment>,
}

pub async fn run(config: Option<&Path>, args: Args) -> Result<(), Failure> {
    let (settings, folder) = settings(config)?;
    let now = Timestamp::now();
    let date = args.date.unwrap_or_else(|| now.to_zoned(TimeZone::UTC).date());
    let prepared = prepare(&args, &settings, &folder)?;
    let Described {
        configuration,
        crm,
        masked,
        ..
    } = &prepared.described;
    let examples = examples(&args, settings.clone(), &folder, &prepared, date).await?;
    let manifest = Manifest {
        configuration,
        crm,
        masked: *masked,
        customer: &prepared.customer,
        examples: &examples,
        date,
    };
    let document = manifest.document();
    let rendered = pdf::render(&document, prepared.fonts, date).map_err(|error| usage(error.to_string()))?;
    let mut attachments = vec![Attachment {
        name: format!("{}.pdf", stem(&args)),
        data: rendered.clone(),
    }];
    attachments.extend(prepared.attachments);
    let message = letter::write(&manifest, &prepared.from, attachments, now.as_second()).context("the e-mail")?;
    let files = [
        ("md", markdown::render(&document).into_bytes()),
        ("pdf", rendered),
        ("eml", message),
    ];
    write(&args, &files)?;
    if let Some(folder) = &args.save_examples {
        let kept = examples.write(folder);
        kept.with_context(|| format!("the examples cannot be written into {}", folder.display()))?;
    }
    for (path, shown) in examples.paths() {
        if let Shown::None(why) = shown {
            remark(&format!("warning: {path}: {why}"));
        }
    }
    if *masked {
        remark("note: the bridge's secret is masked in the endpoints; --path-secret writes it");
    }
    Ok(())
}

fn stem(args: &Args) -> String {
    format!("{}-manifest", args.name)
}

fn file(args: &Args, extension: &str) -> PathBuf {
    args.out.join(format!("{}.{extension}", stem(args)))
}

fn usage(problem: impl Into<String>) -> Failure {
    Failure::Usage(vec![problem.into()])
}

fn prepare(args: &Args, settings: &Settings, folder: &Path) -> Result<Prepared, Failure> {
    let mut problems = Vec::new();
    let secret = match args.path_secret.as_ref().map(|typed| typed.value("--path-secret")) {
        None => None,
        Some(Ok(secret)) => Some(secret),
        Some(Err(problem)) => {
            problems.push(problem);
            None
        }
    };
    let described = configuration::describe(&args.name, settings, folder, secret.as_deref())
        .map_err(|found| problems.extend(found))
        .ok();
    let Some(integration) = settings.integrations.get(&args.name) else {
        return Err(Failure::Usage(problems));
    };
    let sources = args.fake || args.live || args.no_examples || !args.auth.is_empty() || args.examples.is_some();
    if !sources {
        let how =
            "the examples' source is missing: --auth KEY=VALUE …, --live, --fake, --examples DIR or --no-examples";
        problems.push(how.to_owned());
    }
    if args.fake && integration.connector != live::FAKE {
        problems.push(format!("--fake is for the connector \"{}\" only", live::FAKE));
    }
    // Before a live run, not after it.
    for path in ["md", "pdf", "eml"].map(|extension| file(args, extension)) {
        if path.exists() && !args.force {
            problems.push(format!("{} is there already; --force overwrites it", path.display()));
        }
    }
    let auth = pairs("--auth", &args.auth, &mut problems).into_iter().collect();
    let customer = customer(args, integration, &mut problems);
    let from = match &args.from {
        Some(from) => from
            .parse()
            .map_err(|error| problems.push(format!("--from: {error}")))
            .ok(),
        None => customer
            .as_ref()
            .and_then(|customer| customer.contacts.first().cloned()),
    };
    let mut read = |flag: &str, path: &PathBuf| {
        let found = std::fs::read(path);
        found
            .map_err(|error| problems.push(format!("{flag} {}: cannot be read: {error}", path.display())))
            .ok()
    };
    let fonts = args.fonts.iter().filter_map(|path| read("--font", path)).collect();
    let attachments = args.attach.iter().filter_map(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        read("--attach", path).map(|data| Attachment {
            name: name.unwrap_or_else(|| "attachment".to_owned()),
            data,
        })
    });
    let mut attachments: Vec<Attachment> = attachments.collect();
    match (described, customer, from) {
        (Some(described), Some(customer), Some(from)) if problems.is_empty() => {
            attachments.extend(links(&customer));
            Ok(Prepared {
                described,
                customer,
                from,
                auth,
                fonts,
                attachments,
            })
        }
        _ => Err(Failure::Usage(problems)),
    }
}

/// The documentation's addresses as a file: Talkdesk asks for documentation among the attachments.
fn links(customer: &Customer) -> Option<Attachment> {
    (!customer.api_docs.is_empty()).then(|| Attachment {
        name: "api-documentation.txt".to_owned(),
        data: (customer.api_docs.join("\r\n") + "\r\n").into_bytes(),
    })
}

/// The customer's data from flags, else from the settings; whatever is missing or wrong goes to the problems.
fn customer(args: &Args, integration: &Integration, problems: &mut Vec<String>) -> Option<Customer> {
    let before = problems.len();
    let mut text = |flag: &str, given: &Option<String>, setting: &str, set: &Option<String>| {
        let value = given.as_ref().or(set.as_ref()).map(|text| text.trim().to_owned());
        match value.filter(|text| !text.is_empty()) {
            None => {
                problems.push(format!("{flag} is missing (or integrations.{}.{setting})", args.name));
                String::new()
            }
            Some(text) if text.contains(char::is_control) => {
                problems.push(format!("{flag}: must be one line"));
                text
            }
            Some(text) => text,
        }
    };
    let name = text("--client", &args.client, "client", &integration.client);
    let keybase_user = text(
        "--keybase-user",
        &args.keybase_user,
        "keybase_user",
        &integration.keybase_user,
    );
    let talkdesk_domain = text(
        "--talkdesk-domain",
        &args.talkdesk_domain,
        "talkdesk_domain",
        &integration.talkdesk_domain,
    );
    let is_host = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let is_domain = talkdesk_domain.contains('.') && talkdesk_domain.chars().all(is_host);
    if !talkdesk_domain.is_empty() && !is_domain {
        problems.push(format!(
            "--talkdesk-domain: {talkdesk_domain:?} is no domain such as acme.mytalkdesk.com"
        ));
    }
    let production_test = args.production_test.map(|answer| answer == Answer::Yes);
    let production_test = production_test.or(integration.production_test);
    if production_test.is_none() {
        let setting = format!("integrations.{}.production_test", args.name);
        problems.push(format!("--production-test is missing, yes or no (or {setting})"));
    }
    let given = if args.contacts.is_empty() {
        &integration.client_contacts
    } else {
        &args.contacts
    };
    if given.is_empty() {
        let setting = format!("integrations.{}.client_contacts", args.name);
        problems.push(format!("--contact is missing, \"Name <address>; note\" (or {setting})"));
    }
    let mut contacts: Vec<Contact> = Vec::new();
    for text in given {
        match text.parse() {
            Ok(contact) => contacts.push(contact),
            Err(error) => problems.push(format!("--contact: {error}")),
        }
    }
    let api_docs = if args.api_docs.is_empty() {
        integration.api_docs.clone()
    } else {
        args.api_docs.clone()
    };
    for url in &api_docs {
        let parsed = url::Url::parse(url).ok();
        if !parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            problems.push(format!("--api-docs: {url:?} is no http or https URL"));
        }
    }
    (problems.len() == before).then(|| Customer {
        name,
        contacts,
        keybase_user,
        production_test: production_test.unwrap_or(false),
        talkdesk_domain,
        use_case: args.use_case.clone().or_else(|| integration.use_case.clone()),
        api_docs,
    })
}

/// The paths that the configuration has, as examples name them.
fn paths(configuration: &Configuration) -> Vec<String> {
    let it = &configuration.integration;
    let endpoints = [
        ("auth_validation", &it.auth_validation_endpoint),
        ("contact_sync", &it.contact_synchronization_endpoint),
        ("agent_sync", &it.agent_synchronization_endpoint),
        ("interaction_update", &it.interaction_retrieval_endpoint),
    ];
    let used = endpoints.into_iter().filter(|(_, url)| url.is_some());
    let actions = configuration
        .actions
        .iter()
        .map(|action| format!("actions/{}", action.name));
    used.map(|(path, _)| path.to_owned()).chain(actions).collect()
}

/// Examples, masked and cut.
async fn examples(
    args: &Args,
    settings: Settings,
    folder: &Path,
    prepared: &Prepared,
    today: Date,
) -> Result<Examples, Failure> {
    let described = &prepared.described;
    let configuration = &described.configuration;
    let mut secrets: Vec<String> = Vec::new();
    let bridge_key = settings
        .integrations
        .get(&args.name)
        .filter(|it| !it.bridge_key.is_empty());
    let bridge_key = bridge_key.map(|it| it.bridge_key_field.clone());
    let mut examples = match (&args.examples, args.no_examples) {
        (Some(folder), _) => Examples::read(folder, &paths(configuration)).map_err(Failure::Usage)?,
        (None, true) => Examples::new("It has no example calls."),
        (None, false) => {
            let crm = match args.fake {
                true => Crm::Fake,
                false => Crm::Configured(prepared.auth.clone()),
            };
            let plan = Plan {
                name: &args.name,
                configuration,
                crm,
                actions: args.fake || args.run_actions,
                today,
            };
            live::record(settings, folder, plan).await.context("the live run")?
        }
    };
    for path in paths(configuration) {
        examples.lacks(path, "No example was recorded for this endpoint.");
    }
    if let Some(field) = bridge_key {
        // The bridge of a live run asks for none.
        examples.each_body(|body| mask::sent(body, &field));
    }
    examples.each_body(|body| secrets.extend(secret_values(body, &described.secret_fields)));
    examples.each_body(|body| mask::secrets(body, &secrets));
    if (args.live || !args.auth.is_empty()) && !args.show_people {
        examples.each_body(mask::people);
    }
    examples.cut();
    Ok(examples)
}

fn secret_values(body: &Value, fields: &[String]) -> Vec<String> {
    let empty = serde_json::Map::new();
    let auth = body.get("auth").and_then(Value::as_object).unwrap_or(&empty);
    let values: BTreeMap<&String, &Value> = auth.iter().filter(|(name, _)| fields.contains(name)).collect();
    values
        .into_values()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn write(args: &Args, files: &[(&str, Vec<u8>)]) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("the folder {} cannot be made", args.out.display()))?;
    for (extension, data) in files {
        let path = file(args, extension);
        let mut options = OpenOptions::new();
        options.write(true);
        if args.force {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let written = options.open(&path).and_then(|mut file| file.write_all(data));
        written.with_context(|| format!("{} cannot be written", path.display()))?;
        print(&path.display().to_string());
    }
    Ok(())
}
