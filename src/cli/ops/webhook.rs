//! What a person does at a CRM, in words.

use serde_json::Value;

use super::{rows, text as shown};

/// How the account's webhook is set up: how it stands, the steps, where to, and with what.
pub fn text(webhook: &Value) -> String {
    let secret = match webhook["secret_setting"].as_str() {
        Some(setting) => format!("that of {setting}"),
        None => shown(&webhook["secret"]),
    };
    let stands = webhook["sentence"].as_str().into_iter().map(str::to_owned);
    let lines = stands.chain(steps(webhook)).chain([format!("its secret: {secret}")]);
    lines.collect::<Vec<_>>().join("\n")
}

/// What is left to people for an account: credentials that end, and a webhook that nobody has set up yet.
pub fn of_account(account: &Value) -> String {
    let mut lines: Vec<String> = rows(&account["renewals"]).iter().map(shown).collect();
    let by_hand = &account["by_hand"];
    if by_hand.is_object() {
        lines.push("its webhook is set up at the CRM by hand:".to_owned());
        lines.extend(steps(by_hand));
        lines.push(match by_hand["secret_setting"].as_str() {
            Some(setting) => format!("its secret: that of {setting}"),
            None => format!("its secret: snapbridge accounts webhook {}", shown(&account["id"])),
        });
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("{}\n\n", lines.join("\n"))
}

fn steps(by_hand: &Value) -> Vec<String> {
    let steps = rows(&by_hand["steps"]);
    let numbered = steps.iter().enumerate();
    let mut lines: Vec<String> = numbered
        .map(|(at, step)| format!("{}. {}", at + 1, shown(step)))
        .collect();
    let url = shown(&by_hand["url"]);
    let below = if url.starts_with('/') {
        " below http.public_url, which is not set"
    } else {
        ""
    };
    lines.push(format!("its URL: {url}{below}"));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_steps_come_with_url_and_secret() {
        let own = json!({
            "sentence": "webhook by hand: its API does not offer it", "steps": ["Open Setup.", "Save."],
            "url": "https://bridge.example/crm/webhooks/hook", "secret": "s3cret", "secret_setting": null,
        });
        assert_eq!(
            text(&own),
            "webhook by hand: its API does not offer it\n1. Open Setup.\n2. Save.\n\
             its URL: https://bridge.example/crm/webhooks/hook\nits secret: s3cret"
        );
        let of_app = json!({
            "sentence": null, "steps": [], "url": "/crm/webhooks", "secret": null,
            "secret_setting": "integrations.crm.app.webhook_secret",
        });
        assert_eq!(
            text(&of_app),
            "its URL: /crm/webhooks below http.public_url, which is not set\n\
             its secret: that of integrations.crm.app.webhook_secret"
        );
    }

    #[test]
    fn an_account_says_what_is_left_to_people() {
        let nothing = json!({"id": "a", "renewals": [], "by_hand": null});
        assert_eq!(of_account(&nothing), "");
        let account = json!({
            "id": "a", "renewals": ["API key: renew it."],
            "by_hand": {"url": "https://bridge.example/x", "secret_setting": null, "steps": ["Save."]},
        });
        assert_eq!(
            of_account(&account),
            "API key: renew it.\nits webhook is set up at the CRM by hand:\n1. Save.\n\
             its URL: https://bridge.example/x\nits secret: snapbridge accounts webhook a\n\n"
        );
    }
}
