//! Checks that need more than one setting, or more than the shape of one.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::problem::Place;
use super::sections::{AuthType, Integration, IntegrationKind};
use super::tree::Log;
use super::{DEALERS, INTEGRATIONS, Settings};

mod linking;

/// RabbitMQ closes the channel of a consumer that keeps a delivery for longer (its default `consumer_timeout`).
const BROKER_CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

pub(crate) fn run(settings: &Settings, log: &mut Log) {
    let mut checks = Checks { log };
    checks.http(settings);
    checks.https(settings);
    checks.times(settings);
    checks.numbers(settings);
    checks.names(settings);
    for (name, integration) in &settings.integrations {
        checks.integration(settings, name, integration);
    }
    linking::run(&mut checks, settings);
}

struct Checks<'a> {
    log: &'a mut Log,
}

/// A setting's dotted name and its value.
type Timed<'a> = (&'a str, Duration);

impl Checks<'_> {
    /// Reports at the first of `keys` that somebody set; silent where one of them already has a problem.
    fn refuse(&mut self, keys: &[&str], what: String, hint: Option<&str>) {
        if keys.iter().any(|key| self.log.bad.contains(*key)) {
            return;
        }
        let place = keys
            .iter()
            .find_map(|key| self.log.places.get(*key).cloned())
            .unwrap_or_else(|| Place::Default(keys.first().copied().unwrap_or_default().to_owned()));
        self.log.problem(place, what, hint.map(str::to_owned));
    }

    fn shorter(&mut self, a: Timed<'_>, b: Timed<'_>, why: &str) {
        if a.1 >= b.1 {
            self.compare(a, b, "must be shorter than", why);
        }
    }

    fn not_longer(&mut self, a: Timed<'_>, b: Timed<'_>, why: &str) {
        if a.1 > b.1 {
            self.compare(a, b, "must not be longer than", why);
        }
    }

    fn compare(&mut self, a: Timed<'_>, b: Timed<'_>, rule: &str, why: &str) {
        let show = |(name, value): Timed<'_>| format!("`{name}` ({})", humantime::format_duration(value));
        self.refuse(&[a.0, b.0], format!("{} {rule} {}", show(a), show(b)), Some(why));
    }

    fn http(&mut self, s: &Settings) {
        if s.http.listen == s.http.admin_listen && s.http.listen.port() != 0 {
            let what = "`http.listen` and `http.admin_listen` are the same address".to_owned();
            self.refuse(
                &["http.admin_listen", "http.listen"],
                what,
                Some("give each its own port"),
            );
        }
        let deadline = ("http.request_deadline", s.http.request_deadline);
        self.not_longer(
            ("http.body_timeout", s.http.body_timeout),
            deadline,
            "the body is part of the request",
        );
        self.shorter(
            ("cold.hold", s.cold.hold),
            deadline,
            "a held request must still be answered",
        );
        self.shorter(
            ("credentials.check_timeout", s.credentials.check_timeout),
            deadline,
            "a request waits for the check",
        );
        self.shorter(
            ("webhook.publish_timeout", s.webhook.publish_timeout),
            deadline,
            "a webhook waits for it",
        );
        for waits in [
            ("interactions.deadline", s.interactions.deadline),
            ("actions.deadline", s.actions.deadline),
        ] {
            self.shorter(waits, deadline, "a request waits for it");
        }
    }

    fn https(&mut self, s: &Settings) {
        match (&s.http_tls.cert, &s.http_tls.key) {
            (Some(_), None) => self.refuse(
                &["http.tls.cert", "http.tls.key"],
                "`http.tls.cert` needs `http.tls.key` beside it".to_owned(),
                Some("the PEM file of the certificate's private key"),
            ),
            (None, Some(_)) => self.refuse(
                &["http.tls.key", "http.tls.cert"],
                "`http.tls.key` needs `http.tls.cert` beside it".to_owned(),
                Some("the PEM file of the certificate and the intermediate ones"),
            ),
            _ => {}
        }
        let tls = s.http_tls.cert.is_some() || s.http_tls.key.is_some();
        if s.http.require_https && !tls && s.http.trusted_proxies.is_empty() {
            self.refuse(
                &["http.require_https"],
                "`http.require_https` would refuse every request".to_owned(),
                Some("set `http.tls.cert` and `http.tls.key`, or `http.trusted_proxies` to the proxy that has the TLS"),
            );
        }
        let plain = s.http.public_url.as_ref().is_some_and(|url| url.scheme() == "http");
        if plain && (tls || s.http.require_https) {
            let by = if tls { "http.tls.cert" } else { "http.require_https" };
            self.refuse(
                &["http.public_url", by],
                format!("`http.public_url` is http although `{by}` is set"),
                Some("nobody would get through; write https://"),
            );
        }
    }

    fn times(&mut self, s: &Settings) {
        let lease = ("worker.lease", s.worker.lease);
        let slice = ("worker.slice_time", s.worker.slice_time);
        self.shorter(slice, lease, "a slice must end while its lease stands");
        self.shorter(
            slice,
            ("refresh.marker", s.refresh.marker),
            "the marker of a running job would expire",
        );
        let call = ("crm.call_timeout", s.crm.call_timeout);
        if s.worker.slice_time + s.crm.call_timeout >= BROKER_CONSUMER_TIMEOUT {
            let what = "`worker.slice_time` and `crm.call_timeout` together must stay below 30m".to_owned();
            self.refuse(
                &[slice.0, call.0],
                what,
                Some("the broker takes a delivery back after 30m"),
            );
        }
        self.not_longer(
            ("crm.connect_timeout", s.crm.connect_timeout),
            call,
            "it is part of the call",
        );
        self.not_longer(("crm.read_timeout", s.crm.read_timeout), call, "it is part of the call");
        self.not_longer(
            ("credentials.revocation_window", s.credentials.revocation_window),
            ("credentials.unreachable_window", s.credentials.unreachable_window),
            "the second is the wider one",
        );
        self.not_longer(
            ("accounts.suspend_after", s.accounts.suspend_after),
            ("accounts.drop_after", s.accounts.drop_after),
            "an account is suspended before it is dropped",
        );
        let (poll, reconcile) = (
            ("refresh.poll", s.refresh.poll),
            ("refresh.reconcile", s.refresh.reconcile),
        );
        self.not_longer(poll, reconcile, "a reconcile is the rarer one");
        self.not_longer(
            ("refresh.sweep", s.refresh.sweep),
            poll,
            "polls are started by the sweep",
        );
        self.not_longer(
            ("retry.first", s.retry.first),
            ("retry.max", s.retry.max),
            "waits grow up to it",
        );
        self.not_longer(
            ("redis.read_timeout", s.redis.read_timeout),
            ("http.request_deadline", s.http.request_deadline),
            "a request reads the store",
        );
        if s.rabbitmq.heartbeat.subsec_nanos() != 0 {
            self.refuse(
                &["rabbitmq.heartbeat"],
                "`rabbitmq.heartbeat` must be whole seconds".into(),
                None,
            );
        }
    }

    fn numbers(&mut self, s: &Settings) {
        if s.page.contacts > s.page.max_contacts {
            let what = "`page.contacts` must not be more than `page.max_contacts`".to_owned();
            self.refuse(&["page.contacts", "page.max_contacts"], what, None);
        }
        if !matches!(s.actions.success_status, 200 | 201) {
            let what = "`actions.success_status` must be 201 or 200".to_owned();
            self.refuse(&["actions.success_status"], what, None);
        }
        if s.refresh.brake_min > s.refresh.brake_max {
            let what = "`refresh.brake_min` must not be more than `refresh.brake_max`".to_owned();
            self.refuse(&["refresh.brake_min", "refresh.brake_max"], what, None);
        }
    }

    fn names(&mut self, s: &Settings) {
        for (key, name) in [
            ("store.namespace", &s.store.namespace),
            ("queue.namespace", &s.queue.namespace),
        ] {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) {
                let what = format!("`{key}` must be 1 to 64 letters, digits, _ or -");
                self.refuse(&[key], what, None);
            }
        }
        if EnvFilter::builder().parse(&s.log.level).is_err() {
            let hint = "such as info, debug or info,worker=debug";
            self.refuse(
                &["log.level"],
                "`log.level` is not a level or a list of directives".into(),
                Some(hint),
            );
        }
    }

    fn integration(&mut self, s: &Settings, name: &str, integration: &Integration) {
        let path = format!("{INTEGRATIONS}.{name}");
        let key = |key: &str| format!("{path}.{key}");
        if integration.connector.is_empty() {
            let hint = "the name of a shipped connector, or the path of a connector's file";
            self.refuse(
                &[&key("connector"), &path],
                format!("`{path}` needs a `connector`"),
                Some(hint),
            );
        }
        let is_linking = integration.kind == IntegrationKind::Linking;
        if !is_linking && integration.auth_type == AuthType::None && integration.path_secret.is_empty() {
            let what = format!("`{path}` has auth_type \"none\" and needs a `path_secret`");
            self.refuse(
                &[&key("path_secret"), &key("auth_type"), &path],
                what,
                Some("anybody could read it"),
            );
        }
        let field = &integration.bridge_key_field;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !(1..=64).contains(&field.len()) || !field.bytes().all(allowed) {
            let key = key("bridge_key_field");
            self.refuse(
                &[&key],
                format!("`{key}` must be 1 to 64 letters, digits, _ or -"),
                None,
            );
        }
        if !matches!(integration.auth_success_status, 200 | 204) {
            let key = key("auth_success_status");
            self.refuse(&[&key], format!("`{key}` must be 200 or 204"), None);
        }
        self.region(&key("region"), integration.region.as_deref());
        if integration.allow_hosts.iter().any(|host| host.trim().is_empty()) {
            let key = key("allow_hosts");
            self.refuse(
                &[&key],
                format!("`{key}` holds an empty entry"),
                Some("such as \"crm.example\", \"*.crm.example\" or \"http://crm.internal:8069\""),
            );
        }
        if integration.poll.is_some() || integration.reconcile.is_some() {
            let (poll_key, reconcile_key) = (key("poll"), key("reconcile"));
            self.not_longer(
                (&poll_key, integration.poll.unwrap_or(s.refresh.poll)),
                (&reconcile_key, integration.reconcile.unwrap_or(s.refresh.reconcile)),
                "a reconcile is the rarer one",
            );
        }
    }

    fn region(&mut self, key: &str, region: Option<&str>) {
        let is_region = |region: &str| region.len() == 2 && region.bytes().all(|b| b.is_ascii_uppercase());
        if !region.is_none_or(is_region) {
            self.refuse(
                &[key],
                format!("`{key}` must be two capital letters"),
                Some("such as PT"),
            );
        }
    }
}
