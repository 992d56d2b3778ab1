//! The one TLS provider of the process.

/// Makes *ring* the process-wide provider of rustls. Call it before the first client is built: reqwest is compiled
/// without a provider of its own and panics where none is installed. Calling it again changes nothing.
pub fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Lost only against another thread that installs the same provider in the same moment.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
