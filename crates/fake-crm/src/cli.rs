//! `snapbridge fake-crm`: the CRM for people.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::{AccountOptions, BadRateLimit, FakeCrm, Options, Profile, RateLimit};

/// A fake CRM with generated contacts, for trying things out.
#[derive(Clone, clap::Args)]
pub struct Cli {
    /// Address to serve on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8099")]
    pub listen: SocketAddr,

    /// Which vendor to play: its paths, credentials, limits, errors and webhooks.
    #[arg(long, value_name = "VENDOR", default_value = "house", value_enum)]
    pub profile: Profile,

    /// Account name, part of the house's path; give it several times for several accounts.
    #[arg(long, value_name = "NAME", default_value = "demo")]
    pub account: Vec<String>,

    /// Token that the accounts accept.
    #[arg(long, value_name = "TOKEN", default_value = "demo-token")]
    pub token: String,

    /// Generated contacts per account.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub contacts: usize,

    /// Makes the people of an account of that name: two fakes, of a DMS and of Web1on1, that know the same ones.
    #[arg(long, value_name = "NAME")]
    pub like: Option<String>,

    /// The same seed makes the same contacts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Rate limit per account of the house: calls/window, or `none`. The other profiles have their vendors' limits, which
    /// the knob `limits` changes.
    #[arg(long, value_name = "LIMIT", default_value = "100/1s")]
    pub limit: Limit,
}

/// A [`RateLimit`] or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<RateLimit>);

impl FromStr for Limit {
    type Err = BadRateLimit;

    fn from_str(text: &str) -> Result<Limit, BadRateLimit> {
        if text == "none" {
            Ok(Limit(None))
        } else {
            text.parse().map(|limit| Limit(Some(limit)))
        }
    }
}

/// The token stays out of it.
impl fmt::Debug for Cli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cli")
            .field("listen", &self.listen)
            .field("profile", &self.profile)
            .field("account", &self.account)
            .field("contacts", &self.contacts)
            .field("seed", &self.seed)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// Serves until `stop`; says on standard output what is served and how to call it.
///
/// # Errors
/// When an account name cannot be part of a path or comes twice, or the address cannot be served on.
pub async fn run(cli: Cli, stop: CancellationToken) -> anyhow::Result<()> {
    let crm = FakeCrm::new(options(&cli)?);
    let listener = tokio::net::TcpListener::bind(cli.listen)
        .await
        .with_context(|| format!("cannot listen on {}; try another --listen", cli.listen))?;
    let banner = banner(&cli, listener.local_addr()?);
    // A closed pipe is no reason not to serve.
    let _ = std::io::stdout().lock().write_all(banner.as_bytes());
    crm.serve(listener, stop).await
}

fn options(cli: &Cli) -> anyhow::Result<Options> {
    let mut accounts: Vec<AccountOptions> = Vec::new();
    for name in &cli.account {
        let plain = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        anyhow::ensure!(plain, "--account {name:?}: use letters, digits, - and _");
        anyhow::ensure!(
            accounts.iter().all(|known| known.name != *name),
            "--account {name} is given twice"
        );
        accounts.push(AccountOptions {
            name: name.clone(),
            profile: cli.profile,
            like: cli.like.clone(),
            // A call finds its account by its token, so the further ones have one of their own.
            token: if cli.profile == Profile::House || accounts.is_empty() {
                cli.token.clone()
            } else {
                format!("{}-{name}", cli.token)
            },
            contacts: cli.contacts,
            limit: cli.limit.0,
            ..AccountOptions::default()
        });
    }
    Ok(Options {
        seed: cli.seed,
        accounts,
    })
}

fn banner(cli: &Cli, address: SocketAddr) -> String {
    let base = format!("http://{address}");
    let limit = match cli.limit.0 {
        _ if cli.profile != Profile::House => format!("limits of {}", cli.profile),
        None => "no rate limit".to_owned(),
        Some(limit) => format!("limit {limit}"),
    };
    let accounts = cli.account.join(", ");
    let account = cli.account.first().map_or("demo", String::as_str);
    let token = &cli.token;
    let example = cli.profile.vendor().example(&base, account, token);
    format!(
        "fake CRM on {base}: {accounts}; {} contacts each, seed {}, {limit}\n\n\
         {example}\n\
         curl -s {base}/_control -d '{{\"account\": \"{account}\", \"edit\": {{\"count\": 5}}}}'\n\
         curl -s {base}/_control -d '{{\"account\": \"{account}\", \"set\": {{\"slow_ms\": 500, \"burst_429\": 3}}}}'\n\
         curl -s '{base}/_stats?account={account}'\n",
        cli.contacts, cli.seed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Wrapper {
        #[command(flatten)]
        cli: Cli,
    }

    fn cli(flags: &[&str]) -> Result<Cli, clap::Error> {
        Wrapper::try_parse_from([&["fake-crm"], flags].concat()).map(|wrapper| wrapper.cli)
    }

    #[test]
    fn flags_become_options() {
        let cli = cli(&["--account", "a", "--account", "b", "--contacts", "7", "--limit", "5/2s"]).expect("flags");
        let options = options(&cli).expect("options");
        let names: Vec<&str> = options.accounts.iter().map(|account| account.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(options.accounts[0].contacts, 7);
        assert_eq!(
            options.accounts[1].limit,
            Some(RateLimit {
                max: 5,
                window: std::time::Duration::from_secs(2)
            })
        );
    }

    #[test]
    fn bad_flags_are_refused() {
        let error = cli(&["--limit", "fast"]).expect_err("refused").to_string();
        assert!(error.contains("100/1s"), "{error}");
        assert!(options(&cli(&["--account", "a/b"]).expect("flags")).is_err());
        assert!(options(&cli(&["--account", "a", "--account", "a"]).expect("flags")).is_err());
        assert_eq!(cli(&["--limit", "none"]).expect("flags").limit, Limit(None));
    }

    #[test]
    fn the_banner_names_the_port_that_was_taken() {
        let cli = cli(&[]).expect("defaults");
        let banner = banner(&cli, "127.0.0.1:4711".parse().expect("address"));
        assert!(
            banner.contains("http://127.0.0.1:4711/api/demo/contacts") && banner.contains("limit 100/1s"),
            "{banner}"
        );
    }

    #[test]
    fn a_profile_is_named_on_the_command_line_and_its_accounts_have_tokens_of_their_own() {
        for profile in Profile::ALL {
            let cli = cli(&["--profile", profile.name(), "--account", "a", "--account", "b"]).expect("flags");
            let options = options(&cli).expect("options");
            assert_eq!(options.accounts[0].profile, *profile);
            let tokens = options.accounts.iter().map(|account| account.token.as_str());
            let shared = tokens.collect::<std::collections::HashSet<_>>().len() == 1;
            assert_eq!(shared, *profile == Profile::House);
            assert!(
                banner(&cli, "127.0.0.1:1".parse().expect("address")).contains("demo-token"),
                "{profile}"
            );
        }
        let error = cli(&["--profile", "rolodex"]).expect_err("refused").to_string();
        assert!(error.contains("hubspot"), "{error}");
    }

    #[tokio::test]
    async fn it_serves_until_it_is_told_to_stop_and_says_why_it_cannot() {
        let stop = CancellationToken::new();
        stop.cancel();
        run(
            cli(&["--listen", "127.0.0.1:0", "--contacts", "3"]).expect("flags"),
            stop.clone(),
        )
        .await
        .expect("served");
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = taken.local_addr().expect("address").to_string();
        let error = run(cli(&["--listen", &address]).expect("flags"), stop)
            .await
            .expect_err("taken");
        assert!(error.to_string().contains(&address), "{error}");
    }
}
