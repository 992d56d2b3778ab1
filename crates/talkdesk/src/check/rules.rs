//! Every rule of the checker, as a table.

use serde::Serialize;

/// One rule that a bridge keeps or breaks.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Stable; for `--ignore` and for programs.
    pub id: &'static str,
    pub severity: Severity,
    /// The document and step that says so.
    pub source: &'static str,
    pub description: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A documented rule; or contacts are lost, repeated without end, or shown to wrong credentials.
    Error,
    /// A recommendation where the documents are silent.
    Warning,
}

macro_rules! rules {
    ($($name:ident = $id:literal $severity:ident, $source:expr, $description:literal;)*) => {
        $(pub(super) static $name: Rule = Rule {
            id: $id,
            severity: Severity::$severity,
            source: $source,
            description: $description,
        };)*
        /// In the order in which they are checked.
        pub static RULES: &[&Rule] = &[$(&$name),*];
    };
}

const OPEN: &str = "recommendation; Talkdesk's documents leave it open";
const MANUAL: &str = "Talkdesk integrations manual, endpoints";
const SYNC_REPLY: &str = "Talkdesk contact sync, response";
const SYNC_CONTACT: &str = "Talkdesk contact sync, response, contacts";
const VALIDATION: &str = "Talkdesk authorization validation, response";
const AGENTS_META: &str = "Talkdesk agent sync, request, meta";
const AGENTS: &str = "Talkdesk agent sync, response";
const INTERACTIONS: &str = "Talkdesk interaction retrieval, response";
const ACTIONS: &str = "Talkdesk action execution, response";

rules! {
    HTTPS = "http.https" Error, MANUAL,
        "Endpoints are served over https; plain http is for this machine only.";
    CONTENT_TYPE = "http.content-type" Error, MANUAL,
        "JSON answers carry Content-Type: application/json.";
    SLOW = "http.slow" Warning, OPEN,
        "An answer comes within the time that callers commonly wait (--slow).";
    REQUEST_TYPE = "http.request-type" Warning, OPEN,
        "A JSON body is read whatever Content-Type its request names, if any.";
    METHOD = "http.method" Warning, OPEN,
        "A method other than POST is answered 405 with Allow: POST.";
    OVERSIZE = "http.oversize" Warning, OPEN,
        "A body much larger than any request of Talkdesk's (--oversize) is refused (413).";
    MALFORMED = "http.malformed" Warning, OPEN,
        "What is not a request of the documented shape is refused with a 4xx.";
    ERROR_MESSAGE = "http.error-message" Warning, OPEN,
        "An error is JSON with a `message` for people.";

    VALIDATE_ACCEPTS = "validate.accepts" Error, VALIDATION,
        "Good credentials are accepted.";
    VALIDATE_STATUS = "validate.status" Warning, VALIDATION,
        "Good credentials are answered 200 (204 is the older edition's).";
    VALIDATE_FIELDS = "validate.fields" Warning, VALIDATION,
        "Whatever the answer holds is stored and sent as a field of `auth` from then on: it holds nothing else.";
    VALIDATE_REFUSES = "validate.refuses" Error, VALIDATION,
        "Wrong credentials are not accepted.";
    VALIDATE_UNAUTHORIZED = "validate.unauthorized" Error, VALIDATION,
        "Wrong credentials are answered 401.";

    NEXT_PAGE = "sync.next-page" Error, "Talkdesk contact sync, step 2, second situation",
        "A `next_offset`, sent as `meta.offset` without a checkpoint, brings the initial sync's next page.";
    NEXT_RUN = "sync.next-run" Error, "Talkdesk contact sync, step 2, third situation",
        "A checkpoint without an offset begins an incremental sync.";
    NEXT_RUN_PAGE = "sync.next-run-page" Error, "Talkdesk contact sync, step 2, fourth situation",
        "A checkpoint with an offset brings the incremental sync's next page.";

    PAGE_CONTACTS = "page.contacts" Error, SYNC_REPLY,
        "`contacts` is an array on every page.";
    PAGE_CHECKPOINT = "page.checkpoint" Error, SYNC_REPLY,
        "`synchronization_checkpoint` is a string on every page; without it everything is fetched on every sync.";
    PAGE_OFFSET = "page.offset" Error, SYNC_REPLY,
        "`next_offset`, where there is one, is a string.";
    PAGE_LAST = "page.last" Warning, SYNC_REPLY,
        "The last page leaves `next_offset` out, rather than sending null or an empty string.";
    CONTACT_OBJECT = "contact.object" Error, SYNC_CONTACT,
        "Each contact is an object.";
    CONTACT_ID = "contact.id" Error, SYNC_CONTACT,
        "`id` is mandatory, a string, and not empty.";
    CONTACT_UNIQUE = "contact.unique" Error, SYNC_CONTACT,
        "An `id` stands on a page once.";
    CONTACT_NAME = "contact.name" Error, SYNC_CONTACT,
        "`name` is mandatory, a string, and not empty.";
    CONTACT_TEXT = "contact.text" Error, SYNC_CONTACT,
        "`company`, `title`, `photo_url`, `address`, `twitter` and `url` are strings.";
    CONTACT_LIST = "contact.list" Error, SYNC_CONTACT,
        "`emails`, `phones` and `websites` are arrays of strings.";
    CONTACT_NULL = "contact.null" Warning, SYNC_CONTACT,
        "An optional field without a value is left out, rather than null.";
    CONTACT_KEYS = "contact.keys" Warning, SYNC_CONTACT,
        "A contact has the eleven documented keys only; what others do is not known.";
    CONTACT_PHONE = "contact.phone" Warning, OPEN,
        "Phone numbers are E.164, as in the sample: a plus sign and digits.";
    CONTACT_LINK = "contact.link" Warning, OPEN,
        "`url` and `photo_url` are whole http or https addresses.";

    PAGING_PROGRESS = "paging.progress" Error, "Talkdesk contact sync, step 5",
        "No page of a run returns an offset that the run has used: it would never end.";
    PAGING_END = "paging.end" Error, "Talkdesk contact sync, step 5",
        "A run ends: it does not go on page after page without a new contact.";
    PAGING_REPEATS = "paging.repeats" Warning, SYNC_CONTACT,
        "A run delivers a contact that did not change once.";
    REPEAT_REFUSED = "repeat.refused" Warning, OPEN,
        "A page asked for twice is answered twice: an answer may be lost on the way.";
    REPEAT_DIFFERS = "repeat.differs" Error, "Talkdesk contact sync, step 5",
        "A page asked for twice holds the same contacts.";
    RESTART = "restart.complete" Error, "Talkdesk contact sync, step 2, first situation",
        "A request with neither checkpoint nor offset begins at the first contact, also in the middle of a run.";
    RESUME_REFUSED = "resume.refused" Warning, OPEN,
        "An offset is still good when its run was broken off or finished.";
    RESUME_DIFFERS = "resume.differs" Error, "Talkdesk contact sync, step 5",
        "A run taken up again at an old offset delivers everything from there on.";
    CHECKPOINT_LOSES = "checkpoint.loses" Error, "Talkdesk contact sync, steps 4 and 6",
        "A run from any page's checkpoint delivers everything that later pages held.";
    CHECKPOINT_REPEATS = "checkpoint.repeats" Error, "Talkdesk contact sync, overview and step 4",
        "A run from a page's checkpoint leaves out what came up to there and has not changed, apart from ties.";
    CHECKPOINT_FALLS_BACK = "checkpoint.falls-back" Error, "Talkdesk contact sync, step 4",
        "The checkpoint of a run that brought nothing new is as good as the one it began with.";
    CHECKPOINT_STANDS = "checkpoint.stands" Warning, "Talkdesk contact sync, step 4",
        "Each page's checkpoint marks its own last contact, so that a broken run need not begin again.";
    CHECKPOINT_UNREADABLE = "checkpoint.unreadable" Warning, OPEN,
        "A checkpoint that cannot be read is a full sync; nobody can edit what Talkdesk has stored.";
    CHECKPOINT_NUMBER = "checkpoint.number" Warning, OPEN,
        "A checkpoint that looks like a number may come as a JSON number.";
    OFFSET_UNREADABLE = "offset.unreadable" Warning, OPEN,
        "An offset that cannot be read is refused with a 4xx; page one in its place would be a run without end.";
    OFFSET_ALONE = "offset.alone" Warning, OPEN,
        "An offset means the same page whatever checkpoint is sent beside it.";
    OFFSET_NUMBER = "offset.number" Warning, OPEN,
        "An offset that looks like a number may come as a JSON number.";
    CONTEXT_NEEDED = "context.needed" Warning, OPEN,
        "A page can be had without its `context`.";
    CONTEXT_FOREIGN = "context.foreign" Warning, OPEN,
        "A `context` that is not the bridge's own, whatever JSON it is, changes nothing.";
    CONTEXT_NULL = "context.null" Error, "Talkdesk contact sync, sample request",
        "`context` may be null.";

    REQUEST_META = "request.meta" Warning, OPEN,
        "A request without `meta`, or with null, is an initial sync.";
    REQUEST_NULL = "request.null" Warning, OPEN,
        "A null checkpoint or offset counts as absent.";
    REQUEST_EMPTY = "request.empty" Warning, OPEN,
        "An empty checkpoint or offset counts as absent.";
    REQUEST_UNKNOWN = "request.unknown" Warning, OPEN,
        "Unknown keys of the request and of `meta` are ignored.";
    REQUEST_NUMBER = "request.auth-number" Warning, OPEN,
        "A number in `auth` may come as a JSON number.";

    CREDENTIALS_WRONG = "credentials.wrong" Error, "Talkdesk contact sync, step 1",
        "Wrong credentials are refused in every situation.";
    CREDENTIALS_MISSING = "credentials.missing" Error, "Talkdesk contact sync, step 1",
        "A request without credentials is refused.";
    CREDENTIALS_STATUS = "credentials.status" Warning, MANUAL,
        "Wrong credentials are answered 401, at which Talkdesk renews an OAuth token.";

    AGENTS_ANSWERS = "agents.answers" Error, AGENTS_META,
        "A request with a null offset, and one with the last answer's `next_offset`, is answered.";
    AGENTS_ARRAY = "agents.array" Error, AGENTS,
        "`agents` is an array of objects.";
    AGENTS_FIRST = "agents.first" Error, AGENTS_META,
        "An absent offset asks for the first page, as null does.";
    AGENTS_META_ABSENT = "agents.meta" Warning, OPEN,
        "A request without `meta` asks for the first page, as in the older edition.";
    AGENTS_FIELDS = "agents.fields" Error, AGENTS,
        "`id`, `name` and `email` are mandatory, strings, and not empty.";
    AGENTS_UNIQUE = "agents.unique" Warning, OPEN,
        "An agent comes once.";
    AGENTS_EMAILS = "agents.emails" Warning, OPEN,
        "No two agents share an email, in whatever case: agents are linked by it.";
    AGENTS_OFFSET = "agents.offset" Error, AGENTS,
        "`next_offset`, where there is one, is an integer.";
    AGENTS_LAST = "agents.last" Error, AGENTS,
        "The last page leaves `next_offset` out, rather than sending null.";
    AGENTS_PAGING = "agents.paging" Error, AGENTS,
        "The list ends, and no page returns an offset that was used.";
    AGENTS_CREDENTIALS = "agents.credentials" Error, AGENTS_META,
        "Wrong credentials are refused.";

    INTERACTIONS_ANSWERS = "interactions.answers" Error, INTERACTIONS,
        "A request for a contact of the sync is answered.";
    INTERACTIONS_ARRAY = "interactions.array" Error, INTERACTIONS,
        "The answer is a bare array of objects.";
    INTERACTIONS_FIELDS = "interactions.fields" Error, INTERACTIONS,
        "`id`, `subject`, `date` and `type` are mandatory, strings, and not empty.";
    INTERACTIONS_OPTIONAL = "interactions.optional" Error, INTERACTIONS,
        "`description` and `url` are strings; `priority` and `status` have one of the documented values.";
    INTERACTIONS_UNIQUE = "interactions.unique" Error, INTERACTIONS,
        "An `id` comes once.";
    INTERACTIONS_TYPE = "interactions.type" Error, INTERACTIONS,
        "`type` is one of those asked for (--interaction-type).";
    INTERACTIONS_DATE = "interactions.date" Warning, OPEN,
        "`date` reads as in the sample, `2012-11-21 17:53:51 UTC`, or as RFC 3339.";
    INTERACTIONS_UNKNOWN = "interactions.unknown" Warning, OPEN,
        "A contact that the bridge does not know is answered 200 with an empty array.";
    INTERACTIONS_STRANGER = "interactions.stranger" Error, "Talkdesk interaction retrieval, request, data",
        "A contact that the bridge does not know has no interactions of others.";
    INTERACTIONS_CREDENTIALS = "interactions.credentials" Error, "Talkdesk interaction retrieval, request, auth",
        "Wrong credentials are refused.";

    ACTION_MALFORMED = "action.malformed" Error, ACTIONS,
        "An action that cannot be read is not answered with success.";
    ACTION_CREDENTIALS = "action.credentials" Error, "Talkdesk action execution, request, auth",
        "Wrong credentials are refused.";
    ACTION_UNKNOWN = "action.unknown" Error, ACTIONS,
        "An action that does not exist is not answered with success.";
    ACTION_MESSAGE = "action.message" Warning, ACTIONS,
        "A refusal has a `message`, which the user may be shown.";
    ACTION_SUCCESS = "action.success" Error, ACTIONS,
        "An action that was executed is answered 201 (--write).";
    ACTION_ANSWER = "action.answer" Error, ACTIONS,
        "`message`, `external_id` and the fields of a new contact are strings (--write).";
    ACTION_CONTACT_URL = "action.contact-url" Error, ACTIONS,
        "An action that made a contact returns its `contact_external_url`: contact pop needs it (--write).";
}

/// The rule of this id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_each_rule_tells_its_source() {
        let ids: std::collections::BTreeSet<_> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
        for known in RULES {
            assert_eq!(rule(known.id), Some(*known));
            assert!(
                !known.source.is_empty() && known.description.ends_with('.'),
                "{known:?}"
            );
        }
        assert_eq!(rule("no.such"), None);
    }
}
