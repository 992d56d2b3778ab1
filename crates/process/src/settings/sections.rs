//! Every setting there is: name, type, default and bounds, documented once. `Settings::reference` prints this table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::backend::{QueueUrl, StoreUrl};
use super::leaf::{ByteSize, SecretMap, TextMap, words};
use super::section::section;
use crate::secrets::Secrets;

section! {
    /// The two listeners of the front.
    Http {
        /// Address Talkdesk and the CRMs' webhooks reach.
        listen: SocketAddr = "127.0.0.1:8080";
        /// Address of /healthz, /readyz, /metrics and /ops. Never open it to the world.
        admin_listen: SocketAddr = "127.0.0.1:8081";
        /// Absolute URL under which the world sees `listen`; printed into the Talkdesk paperwork and webhook URLs.
        public_url: Option<Url> = "";
        /// Time a client has to send its request head.
        header_timeout: Duration = "10s" in "10ms"..="5m";
        /// Time a client has to send its request body.
        body_timeout: Duration = "10s" in "10ms"..="5m";
        /// Time from the request head to the answer; whatever is late then is answered 504.
        request_deadline: Duration = "25s" in "10ms"..="5m";
        /// Time that a stopping process goes on taking connections while its /readyz says 503, so that whatever spreads the load
        /// sees it go. Longer than that takes to look; 0s where nothing does. Requests in hand have `request_deadline` after it.
        drain: Duration = "0s" in "0s"..="10m";
        /// Connections open at once on the public listener.
        max_connections: usize = "512" in "1"..="65535";
        /// Largest body of a Talkdesk call, in bytes.
        body_limit: ByteSize = "256KiB" in "1KiB"..="16MiB";
        /// Largest body of a webhook, in bytes.
        webhook_body_limit: ByteSize = "512KiB" in "1KiB"..="16MiB";
        /// Largest file of a `logo` or `icon`, in bytes.
        image_limit: ByteSize = "256KiB" in "1KiB"..="16MiB";
        /// Networks and addresses of proxies whose X-Forwarded-For, -Proto and -Host are believed; nobody else's are.
        trusted_proxies: Vec<IpNet> = "";
        /// Refuse requests that did not come over TLS, our own or a trusted proxy's, with 403 on the public listener.
        require_https: bool = "false";
    }
}

section! {
    /// HTTPS of the public listener, 1.2 or newer. Without it, put a proxy in front: Talkdesk calls nothing but HTTPS.
    HttpTls {
        /// PEM file of the certificate and the intermediate ones after it. With `key` it turns `http.listen` to HTTPS.
        cert: Option<PathBuf> = "";
        /// PEM file of its private key, not encrypted.
        key: Option<PathBuf> = "";
        /// Time between two looks at the files; once two agree on a change, new connections get the new pair. One that cannot
        /// be used leaves the old one in place.
        reload: Duration = "30s" in "10ms"..="1day";
        /// Time a client has for its handshake.
        handshake_timeout: Duration = "10s" in "10ms"..="5m";
    }
}

section! {
    /// Where snapshots and the work on them live.
    Store {
        /// `sqlite:DIR`, `redis://…` or `rediss://…`. Each role says what it takes where nothing is set.
        url: Option<StoreUrl> = "";
        /// First part of every key; two installations on one Redis need two.
        namespace: String = "sb";
    }
}

section! {
    /// The doorbell between front and worker.
    Queue {
        /// `sqlite:DIR`, `amqp://…` or `amqps://…`. Each role says what it takes where nothing is set.
        url: Option<QueueUrl> = "";
        /// First part of every queue's and exchange's name.
        namespace: String = "sb";
    }
}

section! {
    /// The key file.
    Keys {
        /// File with the identity key and the sealing keys. Each role says what it takes where nothing is set.
        file: Option<PathBuf> = "";
        /// Time between two looks at the file; a changed one is taken on while the process runs. One that cannot be used leaves
        /// the old keys in place.
        reload: Duration = "10s" in "10ms"..="1h";
        /// Time since the last token of a sealing key was met before `keys drop` lets it go, as offsets live for 7 days.
        token_grace: Duration = "7days" in "0s"..="365days";
    }
}

section! {
    /// How much one answer of a sync holds.
    Page {
        /// Contacts of a page.
        contacts: usize = "500" in "1"..="5000";
        /// Most contacts a page may be set to, or grow to.
        max_contacts: usize = "5000" in "1"..="5000";
        /// Agents of a page.
        agents: usize = "500" in "1"..="5000";
        /// Bytes of a page; it ends before the contact that would pass them, though it always holds one.
        bytes: ByteSize = "1MiB" in "4KiB"..="64MiB";
    }
}

words! {
    /// What a sync of a snapshot that is not ready, and has nothing new yet, is answered.
    ColdAnswer {
        /// An empty page with a new `next_offset`: more to come.
        Hold = "hold",
        /// 503 with `Retry-After`.
        Unavailable = "unavailable",
    }
}

section! {
    /// Accounts whose snapshot is still being built.
    Cold {
        /// Answer when the hold ran out: `hold` (an empty page that says "more to come") or `unavailable` (503).
        answer: ColdAnswer = "hold";
        /// Longest time a request waits for something new, the live credential check included.
        hold: Duration = "15s" in "0s"..="5m";
    }
}

section! {
    /// The end of accounts that Talkdesk no longer calls for.
    Accounts {
        /// Silence of Talkdesk after which an account is suspended: no CRM call any more, its webhook at the CRM ended, its
        /// credentials wiped. Talkdesk's next call with credentials revives it.
        suspend_after: Duration = "30days" in "1ms"..="3650days";
        /// Silence of Talkdesk after which all data of a suspended account is dropped.
        drop_after: Duration = "90days" in "1ms"..="3650days";
        /// Accounts that one sweep of a worker looks at for both, and to seal anew what an old key sealed.
        walk: usize = "50" in "1"..="10000";
    }
}

section! {
    /// How long credentials are believed, and how they are checked.
    Credentials {
        /// Age up to which known credentials are served without a new proof.
        revocation_window: Duration = "1h" in "1ms"..="365days";
        /// The same while the CRM cannot be reached.
        unreachable_window: Duration = "24h" in "1ms"..="365days";
        /// Time a live check may take.
        check_timeout: Duration = "8s" in "1ms"..="5m";
        /// Time a refused check is remembered.
        failure_memory: Duration = "60s" in "0s"..="1h";
        /// Time after which refused credentials of a parked account, sent again, are put to the CRM again.
        recheck_after: Duration = "1m" in "1ms"..="1day";
        /// Live checks per minute and locator, so that guessing is slow.
        checks_per_minute: u32 = "10" in "1"..="6000";
        /// The same of an integration whose credentials name no CRM, only tokens, which nobody guesses: all its accounts share
        /// it, and each new token of Talkdesk's is checked once.
        token_checks_per_minute: u32 = "600" in "1"..="60000";
    }
}

section! {
    /// The worker.
    Worker {
        /// Jobs worked on at once.
        slots: usize = "4" in "1"..="256";
        /// Time after which a job hands over to its continuation.
        slice_time: Duration = "20s" in "1ms"..="20m";
        /// CRM pages after which it does.
        slice_pages: u32 = "50" in "1"..="10000";
        /// Life of an account's lease; renewed while its job runs.
        lease: Duration = "30s" in "10ms"..="1h";
        /// Time running jobs have to reach a safe point once the process is told to stop.
        stop_grace: Duration = "8s" in "0s"..="10m";
        /// Rows of one commit.
        commit_rows: usize = "100" in "1"..="1000";
    }
}

section! {
    /// When snapshots are looked at again.
    Refresh {
        /// Time between two polls of an account.
        poll: Duration = "10m" in "1ms"..="30days";
        /// Time between two reconciles of an account.
        reconcile: Duration = "24h" in "1ms"..="365days";
        /// Time between two readings of an account's list of agents.
        agents: Duration = "24h" in "1ms"..="365days";
        /// Age from which a list of agents is read again right behind an agent sync that asks for it.
        agents_on_request: Duration = "10m" in "1ms"..="365days";
        /// Time between two sweeps for what is due.
        sweep: Duration = "15s" in "1ms"..="1h";
        /// Share by which due times are spread, so that accounts do not all come at once.
        jitter: f64 = "0.1" in "0"..="0.5";
        /// Life of the marker that says a job already waits.
        marker: Duration = "2m" in "1ms"..="1day";
        /// Silence of webhooks after which an account that had some is polled more often.
        quiet_webhooks: Duration = "1h" in "1ms"..="30days";
        /// Dirty ids of an account above which a poll takes the place of fetching each.
        dirty_limit: usize = "500" in "1"..="100000";
        /// Time between two looks at work whose connector or lane is paused; it goes on this long after the pause at the latest.
        held_look: Duration = "30s" in "100ms"..="10m";
        /// Time over which contacts take on a changed mapping, each with the first full pass after its turn, so that Talkdesk is not
        /// sent everybody at once. What changes at the CRM does not wait. `0s`: all with the next full pass.
        remap_within: Duration = "7days" in "0s"..="365days";
        /// Share of a snapshot that one full pass may delete.
        brake_ratio: f64 = "0.2" in "0"..="1";
        /// Deletions that are always allowed, however small the snapshot.
        brake_min: u64 = "20" in "0"..="1000000";
        /// Deletions above which a second agreeing pass is waited for, however large the snapshot.
        brake_max: u64 = "1000" in "0"..="100000000";
    }
}

section! {
    /// Jobs that failed and may be tried again.
    Retry {
        /// Attempts before a job is a dead letter.
        attempts: u32 = "8" in "1"..="100";
        /// Wait before the second attempt; doubled each time.
        first: Duration = "5s" in "1ms"..="1day";
        /// Longest wait.
        max: Duration = "1h" in "1ms"..="7days";
        /// Longest `Retry-After` of a CRM that is obeyed as it stands.
        retry_after_max: Duration = "15m" in "1ms"..="1day";
    }
}

section! {
    /// Calls to CRMs.
    Crm {
        /// Time for TCP and TLS.
        connect_timeout: Duration = "5s" in "1ms"..="5m";
        /// Time without a byte of the answer.
        read_timeout: Duration = "10s" in "1ms"..="10m";
        /// Time of one call, all of it.
        call_timeout: Duration = "60s" in "1ms"..="20m";
        /// Largest answer, in bytes after decompression.
        body_limit: ByteSize = "32MiB" in "1KiB"..="1GiB";
        /// Pages after which a walk counts as endless.
        page_limit: u64 = "100000" in "1"..="100000000";
    }
}

words! {
    /// How the dates of interactions are written.
    DateForm {
        /// `2012-11-21 17:53:51 UTC`, the one form that Talkdesk's documents show.
        Talkdesk = "talkdesk",
        /// RFC 3339.
        Rfc3339 = "rfc3339",
    }
}

section! {
    /// Interactions of a contact, asked of the CRM while somebody looks at it.
    Interactions {
        /// Time of a request; the types that are complete then are answered, or 504.
        deadline: Duration = "5s" in "10ms"..="5m";
        /// Time for which an answer of the CRM is kept; 0s: not at all.
        cache: Duration = "30s" in "0s"..="1h";
        /// Interactions of one answer, the newest ones.
        max: usize = "50" in "1"..="1000";
        /// Contacts of the CRM that one request may mean, where several share a phone or an e-mail address.
        contacts: usize = "5" in "1"..="100";
        /// Form of dates: `talkdesk` (2012-11-21 17:53:51 UTC) or `rfc3339`.
        dates: DateForm = "talkdesk";
    }
}

section! {
    /// Actions: what Talkdesk has the CRM do.
    Actions {
        /// Time of a request, the CRM's part included.
        deadline: Duration = "10s" in "10ms"..="5m";
        /// Time for which the same request is not carried out a second time, but answered as the first was; 0s: off.
        replay_window: Duration = "30s" in "0s"..="1h";
        /// Status of an action that was done: 201, or 200.
        success_status: u16 = "201";
    }
}

section! {
    /// Webhooks of CRMs.
    Webhook {
        /// Time for which a repeated event is dropped.
        dedupe: Duration = "10m" in "0s"..="7days";
        /// Age of a signed time stamp that is still believed, where a connector names none.
        tolerance: Duration = "5m" in "1s"..="1day";
        /// Time to mark the work and have the ring confirmed before the sender is told to come again.
        publish_timeout: Duration = "5s" in "1ms"..="1m";
    }
}

section! {
    /// The connection to Redis.
    Redis {
        /// Time of a read.
        read_timeout: Duration = "500ms" in "1ms"..="1m";
        /// Time of one step of a write.
        write_timeout: Duration = "2s" in "1ms"..="5m";
        /// Time between two pings of the watchdog.
        watchdog_ping: Duration = "2s" in "1ms"..="5m";
        /// Pings missed in a row before the connection is rebuilt.
        watchdog_misses: u32 = "3" in "1"..="100";
    }
}

section! {
    /// The connection to RabbitMQ, and limits of its queues.
    Rabbitmq {
        /// Heartbeat that is proposed to the broker; whole seconds.
        heartbeat: Duration = "10s" in "1s"..="5m";
        /// Time to be connected and authenticated.
        connect_timeout: Duration = "3s" in "1ms"..="1m";
        /// Time for the broker to confirm a publish.
        confirm_timeout: Duration = "5s" in "1ms"..="1m";
        /// Jobs a lane may hold before a publish is refused.
        max_length: u32 = "100000" in "1"..="100000000";
        /// Deliveries of one job before the broker sets it aside.
        delivery_limit: u32 = "20" in "1"..="1000";
    }
}

words! {
    /// Form of a log line.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

section! {
    /// The ops page and the operators' commands, on `http.admin_listen`. `up` makes a token of its own in its folder where
    /// none is set; the other roles have no ops page without one.
    Ops {
        /// Token that may look: 16 to 128 letters, digits, _ or -, or its `sha256:` hash (`snapbridge keys hash --new`). Two
        /// while it is rotated.
        read: Secrets = "";
        /// Token that may also pause, resume, refresh, redrive, and have a contact explained.
        operate: Secrets = "";
        /// Token that may also add and forget accounts, erase contacts, discard dead letters, try webhooks, and see the values of
        /// a contact that is explained.
        admin: Secrets = "";
        /// Time after which one logs in anew.
        session: Duration = "12h" in "1m"..="7days";
        /// Deeds of operators that are kept.
        audit: usize = "500" in "1"..="10000";
        /// Time that the charts of depth and age show, of the process that draws them.
        chart: Duration = "24h" in "10m"..="7days";
        /// Time for a running slice to end its page before an account can be forgotten.
        forget_wait: Duration = "10s" in "0s"..="1m";
        /// Time for which a webhook that `doctor` tries is followed: half of it to its job, half of it to the job's end.
        try_wait: Duration = "1m" in "1s"..="80s";
        /// Accounts whose credentials one `doctor` puts to their CRM.
        doctor_accounts: usize = "100" in "0"..="100000";
    }
}

section! {
    /// Log lines, on stderr.
    Log {
        /// `text` or `json`.
        format: LogFormat = "text";
        /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,worker=debug`. `debug` and `trace` are for the
        /// bridge's own lines; libraries that are named (`info,hyper=trace`) may print credentials as they cross the wire.
        level: String = "info";
    }
}

section! {
    /// Traces, in builds with the feature `otel`: one from a webhook over its job and the calls to the CRM to the commit, linked from
    /// the page that serves it.
    Telemetry {
        /// OTLP collector that takes HTTP with protobuf, say `http://127.0.0.1:4318`; `/v1/traces` is added. Without it, none.
        otlp_endpoint: Option<Url> = "";
        /// Time that the collector has for an answer.
        otlp_timeout: Duration = "5s" in "10ms"..="1m";
        /// Share of the traces that are kept.
        sample: f64 = "1" in "0"..="1";
        /// What the traces call this installation.
        service: String = "snapbridge";
    }
}

words! {
    /// What an integration is for.
    IntegrationKind {
        /// Talkdesk's endpoints.
        Talkdesk = "talkdesk",
        /// Two systems that learn each other's contacts.
        Linking = "linking",
    }
}

words! {
    /// How Talkdesk asks a customer for credentials.
    AuthType {
        None = "none",
        Custom = "custom",
        OAuth2 = "oauth2",
        OAuth2Password = "oauth2_password",
        OAuth2ClientCredentials = "oauth2_client_credentials",
    }
}

words! {
    /// How a DMS proves itself at `/updatecontact` (linking).
    UpdateAuth {
        /// One of the dealer's `secrets` as `Authorization: Bearer …`.
        Bearer = "bearer",
        /// `X-Hub-Signature-256: sha256=HEX`, HMAC-SHA256 over the raw body with one of the dealer's `secrets`.
        Hmac = "hmac",
        /// Anybody may call, at the root paths /updatecontact and /webhook, too.
        None = "none",
    }
}

words! {
    /// Whose value of a field counts (linking).
    FieldOwner {
        /// The field does not flow.
        Nobody = "nobody",
        /// The DMS's.
        Dms = "dms",
        /// Web1on1's.
        Web1on1 = "web1on1",
    }
}

words! {
    /// Whether CRMs are asked for their webhooks.
    Subscribe {
        /// Wherever the connector can, and the world reaches the bridge by HTTPS.
        Auto = "auto",
        /// Never; a person sets them up.
        Off = "off",
    }
}

section! {
    /// One integration, `[integrations.NAME]`; the name, `[a-z0-9_-]{1,64}`, stands in its URLs.
    Integration {
        /// `talkdesk`, or `linking`: the contacts of a DMS and of Web1on1 learn each other's links, see docs/linking.md.
        kind: IntegrationKind = "talkdesk";
        /// Name of a shipped connector, or path of a connector's file. Must be set.
        connector: String = "";
        /// `none`, `custom`, `oauth2`, `oauth2_password` or `oauth2_client_credentials`.
        auth_type: AuthType = "custom";
        /// Secret segment of the URL: `/{integration}/k/{secret}/…`. Must be set where `auth_type` is `none`. As it is, or
        /// hashed by `snapbridge keys hash`; a list while it is rotated: each of them is good.
        path_secret: Secrets = "";
        /// Secret that Talkdesk sends in `auth`, as an authentication field of the integration; written as `path_secret`.
        bridge_key: Secrets = "";
        /// Name of that field.
        bridge_key_field: String = "bridge_key";
        /// Hosts the connector may call although they are private, plain http or on another port.
        allow_hosts: Vec<String> = "";
        /// Region of phone numbers without a country code, two letters such as `PT`.
        region: Option<String> = "";
        /// Which contacts are wanted: an expression over the CRM's row `item` and the mapped `contact`, such as
        /// `contact.phones` or `item.owner_id == '7'`. A contact that no longer matches counts as deleted.
        filter: Option<String> = "";
        /// Further fields to ask the CRM for, for `map` and `filter`.
        props: Vec<String> = "";
        /// Time between two polls, instead of `refresh.poll`.
        poll: Option<Duration> = "" in "1ms"..="30days";
        /// Time between two reconciles, instead of `refresh.reconcile`.
        reconcile: Option<Duration> = "" in "1ms"..="365days";
        /// Time between two readings of the agents, instead of `refresh.agents`.
        agents: Option<Duration> = "" in "1ms"..="365days";
        /// Time by which a poll stays behind the CRM's clock, instead of the connector's.
        lag: Option<Duration> = "" in "0s"..="1day";
        /// Time by which a poll reaches back behind its cursor, instead of the connector's.
        overlap: Option<Duration> = "" in "0s"..="7days";
        /// Whether the CRM is asked for its webhook: `auto` (where the connector can and `http.public_url` is https) or `off`
        /// (what was asked for is ended). The default asks, as a `public_url` is there to be reached, a webhook is why edits
        /// arrive at once, and a CRM that refuses costs no more than a few calls.
        subscribe: Subscribe = "auto";
        /// Status of a successful auth_validation: 200, or 204 as older Talkdesk accounts want it.
        auth_success_status: u16 = "200";
        /// Fields an auth_validation returns for Talkdesk to keep.
        return_fields: Vec<String> = "";
        /// PNG or SVG file of the logo that Talkdesk shows; without it a neutral one is served.
        logo: Option<PathBuf> = "";
        /// The same of the icon, shown beside interactions.
        icon: Option<PathBuf> = "";
        /// Name that people see in Talkdesk, instead of the connector's title.
        display_name: Option<String> = "";
        /// What the integration is for: one sentence for people in Talkdesk.
        description: Option<String> = "";
        /// Absolute URL of a logo elsewhere, instead of the one that the front serves.
        logo_url: Option<Url> = "";
        /// Absolute URL of an icon elsewhere, instead of the one that the front serves.
        icon_url: Option<Url> = "";
        /// Whether calls from within the CRM are wanted (CTI); Talkdesk needs the agents for it.
        cti: bool = "false";
        /// Pages of the CRM's API documentation, named in the manifest.
        api_docs: Vec<String> = "";
        /// Customer whom the manifest is for.
        client: Option<String> = "";
        /// The customer's technical contacts, each `Name <address>` or `Name <address>; note`.
        client_contacts: Vec<String> = "";
        /// Keybase user through whom Talkdesk exchanges secrets.
        keybase_user: Option<String> = "";
        /// The customer's Talkdesk domain, such as `acme.mytalkdesk.com`.
        talkdesk_domain: Option<String> = "";
        /// Whether Talkdesk should test in the production environment.
        production_test: Option<bool> = "";
        /// What the customer wants of the integration, instead of the manifest's own sentence.
        use_case: Option<String> = "";
        /// Expressions in the place of the connector's `contacts.map`: custom fields into title, company, websites, …
        map: TextMap = "";
        /// Values of the connector that the operator fixes; shown masked, as some are secrets.
        connection: SecretMap = "";
        /// Where `auth_type` is `none`: the credentials that stand in the place of a customer's.
        credentials: SecretMap = "";
        /// Secrets of app-level webhooks.
        app: SecretMap = "";
        /// Linking: name of the shipped connector of the DMS, or path of its file. `connector` is the one of Web1on1, and
        /// `credentials` are its bot's.
        dms: Option<String> = "";
        /// Linking: how the DMS proves itself at /updatecontact: `bearer`, `hmac`, or `none`.
        auth: UpdateAuth = "bearer";
        /// Linking: `allow_hosts` of the DMS's connector.
        dms_hosts: Vec<String> = "";
        /// Linking: `connection` of the DMS's connector.
        dms_connection: SecretMap = "";
        /// Linking: address of a record in the DMS, such as `https://dms.example/customer/{id}/`.
        dms_url: Option<String> = "";
        /// Linking: what the link to the DMS is called in Web1on1.
        dms_label: String = "View in DMS";
        /// Linking: address of a small picture beside it.
        dms_icon: Option<Url> = "";
        /// Linking: address of a conversation in Web1on1.
        web1on1_url: String = "https://app.web1on1.chat/conversations/{conversation}";
        /// Linking: what the link to the conversation is called in the DMS, where it keeps several.
        web1on1_label: String = "View in Web1on1";
        /// Linking: whose name of a person is written into the other system: `nobody`, `dms` or `web1on1`.
        owner_name: FieldOwner = "nobody";
        /// Linking: whose e-mail address is.
        owner_email: FieldOwner = "nobody";
        /// Linking: whose phone number is.
        owner_phone: FieldOwner = "nobody";
        /// Linking: updates and events of a dealer that may wait, about; beyond it the sender is told to come again.
        /// Each one that comes reads and writes a sixty-fourth of it.
        inbox: usize = "4000" in "200"..="20000";
        /// Linking: records of the DMS that seeding puts into the inbox ahead of the work.
        seed_ahead: usize = "200" in "1"..="10000";
    }
}

section! {
    /// A dealer of an integration of the kind `linking`, `[dealers.NAME]`; the name, `[a-z0-9_-]{1,64}`, is for people.
    Dealer {
        /// The integration it belongs to. Must be set.
        integration: String = "";
        /// Web1on1's id of the dealer, as /updatecontact and the webhook name it. Must be set.
        organization: String = "";
        /// With which its DMS proves itself at /updatecontact; under any names, so that there can be two while they are
        /// rotated. 16 characters or more each.
        secrets: SecretMap = "";
        /// Its credentials at the DMS, as the connector calls them.
        dms: SecretMap = "";
        /// Its own credentials at Web1on1, instead of the integration's `credentials`.
        web1on1: SecretMap = "";
        /// `dms_url` of this dealer, instead of the integration's.
        dms_url: Option<String> = "";
        /// Region of phone numbers without a country code, two letters such as `NO`, instead of the integration's.
        region: Option<String> = "";
        /// Link all records of the DMS once, when the dealer is new and when its links change.
        seed: bool = "false";
    }
}
