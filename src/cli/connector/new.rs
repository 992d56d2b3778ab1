//! `connector new`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use crm::Connector;
use url::Url;

use crate::cli::{Failure, print};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of the connector: 1 to 32 of a-z, 0-9 and -
    id: String,
    /// The CRM's name, for people [default: the id]
    #[arg(long)]
    title: Option<String>,
    /// Where its API is, https://api.crm.example; without one, each account names its own site
    #[arg(long, value_name = "URL")]
    site: Option<Url>,
    /// How calls prove who they are
    #[arg(long, value_enum, default_value_t)]
    auth: Auth,
    /// How one page of contacts leads to the next
    #[arg(long, value_enum, default_value_t)]
    paging: Paging,
    /// The file to write [default: ID.toml]; - prints it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Auth {
    #[default]
    Bearer,
    Header,
    Basic,
    ClientCredentials,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Paging {
    #[default]
    Token,
    NextUrl,
    Keyset,
    Page,
    Offset,
    LinkHeader,
}

const STARTER: &str = include_str!("starter.toml");

pub fn run(args: &Args) -> Result<(), Failure> {
    let file = args.out.clone().unwrap_or_else(|| format!("{}.toml", args.id).into());
    let shown = file.display().to_string();
    let text = starter(args, &shown);
    // An id or title that does not fit shows here, and not when the file is used.
    Connector::load(&text, &shown)
        .map_err(|problems| Failure::Usage(problems.iter().map(ToString::to_string).collect()))?;
    if shown == "-" {
        print(&text);
        return Ok(());
    }
    let made = OpenOptions::new().write(true).create_new(true).open(&file);
    let mut made = made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Usage(vec![format!("{shown} is there already; name another file with --out")])
        }
        _ => anyhow::Error::new(error)
            .context(format!("{shown} cannot be written"))
            .into(),
    })?;
    made.write_all(text.as_bytes())
        .with_context(|| format!("{shown} cannot be written"))?;
    print(&format!(
        "{shown} made. Fill in the paths and fields of the CRM's API, then\n  snapbridge connector check {shown}\n  \
         snapbridge connector test {shown} {}",
        args.auth.example(args.site.is_none())
    ));
    Ok(())
}

fn starter(args: &Args, file: &str) -> String {
    let title = args.title.clone().unwrap_or_else(|| args.id.clone());
    let (site, hosts) = match &args.site {
        Some(url) => {
            let origin = url.origin().ascii_serialization();
            let host = url.host_str().unwrap_or_default();
            let site = format!("from = \"integration\", default = {}", quoted(&origin));
            (site, format!("^{}$", host.replace('.', r"\.")))
        }
        None => (
            "role = \"locator\", title = \"Address of the CRM\"".to_owned(),
            r"^[a-z0-9-]{1,63}\.crm\.example$".to_owned(),
        ),
    };
    let file = if file == "-" { "FILE" } else { file };
    STARTER
        .replace("@ID@", &args.id)
        .replace("\"@TITLE@\"", &quoted(&title))
        .replace("@TITLE@", &title.replace(['\r', '\n'], " "))
        .replace("@FILE@", file)
        .replace("@TRY@", &args.auth.example(args.site.is_none()))
        .replace("@SITE@", &site)
        .replace("@HOSTS@", &hosts)
        .replace("@FIELDS@", args.auth.fields())
        .replace("@AUTH@", args.auth.section())
        .replace("@FULL@", args.paging.section())
}

/// A TOML string: JSON escapes in the same way.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Auth {
    fn fields(self) -> &'static str {
        match self {
            Auth::Bearer | Auth::Header => r#"key  = { type = "secret", title = "API key" }"#,
            Auth::Basic => {
                r#"user = { type = "string", role = "principal", title = "User" }
key  = { type = "secret", title = "API key" }"#
            }
            Auth::ClientCredentials => {
                r#"client_id     = { type = "string", role = "principal", title = "Client id" }
client_secret = { type = "secret", title = "Client secret" }"#
            }
        }
    }

    fn section(self) -> &'static str {
        match self {
            Auth::Bearer => {
                r#"[auth]
kind  = "bearer"
token = "${conn.key}""#
            }
            Auth::Header => {
                r#"[auth]
kind    = "header"
headers = { X-Api-Key = "${conn.key}" }"#
            }
            Auth::Basic => {
                r#"[auth]
kind     = "basic"
user     = "${conn.user}"
password = "${conn.key}""#
            }
            Auth::ClientCredentials => {
                r#"# Tokens are minted before they end; 401 mints one more.
[auth]
kind      = "oauth2"
grants    = ["client_credentials"]
token_url = "${conn.base_url}/oauth/token""#
            }
        }
    }

    fn example(self, names_site: bool) -> String {
        let site = if names_site {
            "--auth site=https://acme.crm.example "
        } else {
            ""
        };
        let rest = match self {
            Auth::Bearer | Auth::Header => "--auth key=@key.txt",
            Auth::Basic => "--auth user=me --auth key=@key.txt",
            Auth::ClientCredentials => "--auth client_id=me --auth client_secret=@secret.txt",
        };
        format!("{site}{rest}")
    }
}

impl Paging {
    fn section(self) -> &'static str {
        match self {
            Paging::Token => {
                r#"request = { path = "/api/contacts", query = { limit = "100", fields = "${props|join(',')}", after = "${page.token}" } }
items   = "response.body.items"
# The token of the next page; none after the last.
page    = { kind = "token", next = "response.body.paging.next" }"#
            }
            Paging::NextUrl => {
                r#"request = { path = "/api/contacts", query = { limit = "100", fields = "${props|join(',')}" } }
items   = "response.body.items"
# The URL of the next page, on the same host; none after the last.
page    = { kind = "next_url", next = "response.body.next" }"#
            }
            Paging::Keyset => {
                r#"request = { path = "/api/contacts", query = { sort = "id", after_id = "${page.keys[0]}", limit = "${page.size}", fields = "${props|join(',')}" } }
items   = "response.body.items"
# The last row's id leads to the next page, so no row can slip from page to page.
page    = { kind = "keyset", size = 100, keys = ["item.id"], stop = "short_page" }"#
            }
            Paging::Page => {
                r#"request = { path = "/api/contacts", query = { page = "${page.number}", per_page = "${page.size}", fields = "${props|join(',')}" } }
items   = "response.body.items"
page    = { kind = "page", size = 100, more = "response.body.has_more" }"#
            }
            Paging::Offset => {
                r#"request = { path = "/api/contacts", query = { offset = "${page.offset}", limit = "${page.size}", fields = "${props|join(',')}" } }
items   = "response.body.items"
page    = { kind = "offset", size = 100, total = "response.body.total" }"#
            }
            Paging::LinkHeader => {
                r#"request = { path = "/api/contacts", query = { per_page = "100", fields = "${props|join(',')}" } }
items   = "response.body.items"
# The header `Link: <…>; rel="next"` names the next page.
page    = { kind = "link_header" }"#
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(auth: Auth, paging: Paging, site: Option<&str>) -> Args {
        Args {
            id: "acme".to_owned(),
            title: Some("The \"Acme\" CRM".to_owned()),
            site: site.map(|url| url.parse().unwrap()),
            auth,
            paging,
            out: None,
        }
    }

    /// What is offered as a comment, without its `# `.
    fn whole(text: &str) -> String {
        let (active, optional) = text.split_once("# ==== What follows").unwrap();
        let lines = optional.lines().skip(1).map(|line| match line.strip_prefix("# ") {
            Some(line) if !line.starts_with('-') => line,
            _ => "",
        });
        format!("{active}\n{}", lines.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn every_starting_file_is_right_also_with_its_comments_taken_away() {
        for auth in Auth::value_variants() {
            for paging in Paging::value_variants() {
                for site in [None, Some("https://api.acme.example/v2")] {
                    let text = starter(&args(*auth, *paging, site), "acme.toml");
                    for text in [text.clone(), whole(&text)] {
                        let problems = Connector::load(&text, "acme.toml").err().unwrap_or_default();
                        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                        assert!(
                            problems.is_empty(),
                            "{auth:?} {paging:?}: {}\n{text}",
                            problems.join("\n")
                        );
                        assert!(!text.contains('@') || !text.contains("@ID@"), "a hole is left");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_offered_as_a_comment_is_all_that_a_connector_can() {
        let text = starter(&args(Auth::Bearer, Paging::Token, None), "acme.toml");
        let connector = Connector::load(&whole(&text), "acme.toml").unwrap();
        assert!(connector.has_agents() && connector.webhook().is_some());
        assert_eq!(connector.interaction_types().collect::<Vec<_>>(), ["ticket"]);
        assert_eq!(connector.actions().collect::<Vec<_>>(), ["create_ticket"]);
    }

    #[test]
    fn a_bad_id_is_told_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("x.toml");
        let bad = Args {
            id: "No Good".to_owned(),
            out: Some(out.clone()),
            ..args(Auth::Bearer, Paging::Token, None)
        };
        let Err(Failure::Usage(problems)) = run(&bad) else {
            panic!("a bad id was taken");
        };
        assert!(problems[0].contains("1 to 32 characters"), "{problems:?}");
        assert!(!out.exists());
    }

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("x.toml");
        std::fs::write(&out, "mine").unwrap();
        let again = Args {
            out: Some(out.clone()),
            ..args(Auth::Bearer, Paging::Token, None)
        };
        assert!(matches!(run(&again), Err(Failure::Usage(_))));
        assert_eq!(std::fs::read_to_string(out).unwrap(), "mine");
    }
}
