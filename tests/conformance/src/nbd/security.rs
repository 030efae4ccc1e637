//! TCP: TLS with certificates of clients, and nothing in the clear by mistake.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::certificates::Authority;
use crate::image;
use crate::stage::{Server, Stage};
use crate::suite::{Check, Finding};
use crate::tool::{fail, succeed};

pub(super) const CHECKS: &[Check<Stage>] = &[
    Check {
        name: "libnbd's tools connect over TLS with a certificate",
        tools: &["nbdinfo", "nbdcopy"],
        run: libnbd,
    },
    Check {
        name: "QEMU's tools connect over TLS with a certificate",
        tools: &["qemu-img"],
        run: qemu,
    },
    Check {
        name: "a client without TLS is told that it is required",
        tools: &["nbdinfo", "qemu-img"],
        run: in_the_clear,
    },
    Check {
        name: "a client of a strange authority is turned away",
        tools: &["nbdinfo"],
        run: strange_client,
    },
    Check {
        name: "TCP without TLS needs a flag and the loopback interface",
        tools: &["nbdinfo"],
        run: plaintext,
    },
];

fn gateway(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(test_node::program("storaged-nbd")?);
    command
        .args(["--memory", "disk=67108864"])
        .args(arguments)
        .env("RUST_LOG", "error");
    Ok(command)
}

/// A server under TLS on a free port; gives its port too.
fn secure(stage: &Stage) -> Result<(Authority, Server, String)> {
    let authority = Authority::create(&stage.folder.path().join("certificates"))?;
    let mut command = gateway(&["--listen", "tcp:127.0.0.1:0"])?;
    command.args(["--tls-certificate", &authority.file("server-cert.pem")]);
    command.args(["--tls-key", &authority.file("server-key.pem")]);
    command.args(["--tls-client-authority", &authority.file("ca-cert.pem")]);
    let server = Server::start(&mut command, 1)?;
    let port = port(&server)?;
    Ok((authority, server, port))
}

fn port(server: &Server) -> Result<String> {
    let address = server.addresses.first().context("no address")?;
    Ok(address.rsplit(':').next().context("no port")?.to_owned())
}

fn secure_uri(port: &str, certificates: &str) -> String {
    format!("nbds://127.0.0.1:{port}/disk?tls-certificates={certificates}")
}

fn libnbd(stage: &mut Stage) -> Finding {
    let (authority, _server, port) = secure(stage)?;
    let uri = secure_uri(&port, &authority.folder.display().to_string());
    let said = succeed("nbdinfo", [&uri])?;
    ensure!(said.contains("with TLS"), "{said}");
    let (source, back) = (stage.path("source.raw"), stage.path("back.raw"));
    image::create(source.as_ref(), 40_000_001, &[(1_000_000, 20_000_000)])?;
    succeed("nbdcopy", ["--connections=2", &source, &uri])?;
    succeed("nbdcopy", ["--connections=2", &uri, &back])?;
    let difference = image::difference(source.as_ref(), back.as_ref())?;
    ensure!(difference.is_none(), "the copy differs at byte {difference:?}");
    Ok(())
}

fn qemu(stage: &mut Stage) -> Finding {
    let (authority, _server, port) = secure(stage)?;
    let credentials = format!(
        "tls-creds-x509,id=tls,endpoint=client,dir={}",
        authority.folder.display()
    );
    let export = format!(
        "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={port},export=disk,tls-creds=tls"
    );
    let said = succeed(
        "qemu-img",
        ["info", "--object", &credentials, "--image-opts", &export],
    )?;
    ensure!(said.contains("64 MiB"), "{said}");
    let commands = [
        "-c",
        "write -P 3 0 8M",
        "-c",
        "read -P 3 0 8M",
        "--object",
        &credentials,
    ];
    let said = succeed(
        "qemu-io",
        commands.into_iter().chain(["--image-opts", export.as_str()]),
    )?;
    ensure!(!said.contains("verification failed"), "{said}");
    Ok(())
}

fn in_the_clear(stage: &mut Stage) -> Finding {
    let (_authority, _server, port) = secure(stage)?;
    let uri = format!("nbd://127.0.0.1:{port}/disk");
    fail("nbdinfo", [&uri])?;
    let said = fail("qemu-img", ["info", &uri])?;
    ensure!(said.contains("STARTTLS"), "{said}");
    Ok(())
}

fn strange_client(stage: &mut Stage) -> Finding {
    let (authority, _server, port) = secure(stage)?;
    let stranger = Authority::create(&stage.folder.path().join("stranger"))?;
    // It trusts the server, so that nothing but its own certificate is in question.
    std::fs::copy(authority.file("ca-cert.pem"), stranger.file("ca-cert.pem"))?;
    fail(
        "nbdinfo",
        [secure_uri(&port, &stranger.folder.display().to_string())],
    )?;
    succeed(
        "nbdinfo",
        [secure_uri(&port, &authority.folder.display().to_string())],
    )?;
    Ok(())
}

fn plaintext(_stage: &mut Stage) -> Finding {
    let refused = gateway(&["--listen", "tcp:127.0.0.1:0"])?;
    let said = fail(refused.get_program(), refused.get_args())?;
    ensure!(said.contains("needs TLS"), "{said}");
    let refused = gateway(&["--listen", "tcp:0.0.0.0:0", "--plaintext"])?;
    let said = fail(refused.get_program(), refused.get_args())?;
    ensure!(said.contains("other machines"), "{said}");
    let server = Server::start(&mut gateway(&["--listen", "tcp:127.0.0.1:0", "--plaintext"])?, 1)?;
    succeed("nbdinfo", [format!("nbd://127.0.0.1:{}/disk", port(&server)?)])?;
    server.stop()
}
