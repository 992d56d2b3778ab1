//! A call as a vendor reads it, and an answer as a vendor writes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde_json::Value;

use crate::api::{ApiError, bad};

pub(crate) const JSON: &str = "application/json";

/// A request with its path and query taken apart and decoded.
pub(crate) struct Request<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    segments: Vec<String>,
    query: Vec<(String, String)>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap, body: &'a [u8]) -> Request<'a> {
        let path = uri.path().trim_matches('/').split('/');
        let segments = path.map(decoded).collect();
        let query = pairs(uri.query().unwrap_or_default().as_bytes());
        Request {
            method,
            uri,
            headers,
            body,
            segments,
            query,
        }
    }

    /// Method and decoded segments of the path, to be matched on.
    pub(crate) fn target(&self) -> (&str, Vec<&str>) {
        (self.method.as_str(), self.segments.iter().map(String::as_str).collect())
    }

    /// The nth segment of the path, from 0; empty where there is none.
    pub(crate) fn segment(&self, at: usize) -> &str {
        self.segments.get(at).map_or("", String::as_str)
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.queries().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(crate) fn queries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A number in the query; an error for what is none.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.query(name).map(str::parse) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(bad(format!("{name} is no number"))),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What follows a scheme in `Authorization`.
    pub(crate) fn authorization(&self, scheme: &str) -> Option<&str> {
        let (found, rest) = self.header(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
    }

    pub(crate) fn bearer(&self) -> Option<&str> {
        self.authorization("Bearer")
    }

    /// User and password of HTTP Basic.
    pub(crate) fn basic(&self) -> Option<(String, String)> {
        let bytes = STANDARD.decode(self.authorization("Basic")?).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        Some((user.to_owned(), password.to_owned()))
    }

    pub(crate) fn json(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(self.body).map_err(|error| bad(error.to_string()))
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        pairs(self.body)
    }

    /// `http://host:port` that the caller used, for links in answers.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.header(header::HOST.as_str()).unwrap_or("localhost"))
    }
}

fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(bytes).into_owned().collect()
}

/// Percent-decoding only: a plus in a path is a plus.
fn decoded(segment: &str) -> String {
    let escaped = segment.replace('+', "%2B");
    match pairs(format!("p={escaped}").as_bytes()).pop() {
        Some((_, text)) => text,
        None => segment.to_owned(),
    }
}

/// What leaves the CRM, before the network has its way with it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Reply {
        Reply {
            status,
            content_type,
            body,
            headers: Vec::new(),
        }
    }

    pub(crate) fn json(status: StatusCode, value: &Value) -> Reply {
        Reply::bytes(status, JSON, value.to_string().into_bytes())
    }

    pub(crate) fn ok(value: &Value) -> Reply {
        Reply::json(StatusCode::OK, value)
    }

    pub(crate) fn created(value: &Value) -> Reply {
        Reply::json(StatusCode::CREATED, value)
    }

    pub(crate) fn empty(status: StatusCode) -> Reply {
        Reply::bytes(status, JSON, Vec::new())
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Worth spoiling: an answer with a body of JSON that a client will want to read.
    pub(crate) fn is_whole(&self) -> bool {
        self.status.is_success() && self.content_type.starts_with(JSON) && !self.body.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_decoded_once() {
        let uri: Uri = "/a%20b/c+d/?q=x%2By+z&limit=7".parse().expect("uri");
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "Basic dXNlcjpwYTpzcw==".parse().expect("value"))]);
        let request = Request::new(&Method::GET, &uri, &headers, b"");
        assert_eq!(request.target(), ("GET", vec!["a b", "c+d"]));
        assert_eq!(request.query("q"), Some("x+y z"));
        assert_eq!(request.number::<u32>("limit").expect("number"), Some(7));
        assert!(request.number::<u32>("q").is_err());
        assert_eq!(request.basic(), Some(("user".to_owned(), "pa:ss".to_owned())));
        assert_eq!(request.bearer(), None);
    }
}
