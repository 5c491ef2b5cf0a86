use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel,
};

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::floors::bytes::{bundle, ends};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// `ipc-channel`'s channels of bytes, met through its one-shot server.
pub(crate) struct IpcBytes {
    input: IpcBytesReceiver,
    output: IpcBytesSender,
}

impl Port for IpcBytes {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(self.output.send(message)?)
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        let message = self
            .input
            .recv()
            .map_err(|e| Failure::Failed(format!("{e:?}")))?;
        let room = buffer
            .get_mut(..message.len())
            .ok_or_else(|| Failure::Failed("a message grew on the way".into()))?;
        room.copy_from_slice(&message);
        Ok(message.len())
    }
}

pub(crate) struct IpcChannelLink;

impl Link for IpcChannelLink {
    type Port = IpcBytes;

    /// A stream over which the server's name travels.
    fn open(_spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (a, b) = UnixStream::pair()?;
        Ok([bundle([a.into()]), bundle([b.into()])])
    }

    fn port(_spec: &Spec, side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [fd] = ends(bundle)?;
        let mut stream = UnixStream::from(fd);
        if side == Side::Initiator {
            let (server, name) = IpcOneShotServer::<(IpcBytesSender, IpcBytesReceiver)>::new()?;
            stream.write_all(name.as_bytes())?;
            drop(stream);
            let (_, (output, input)) = server
                .accept()
                .map_err(|e| Failure::Failed(format!("{e:?}")))?;
            Ok(IpcBytes { input, output })
        } else {
            let mut name = String::new();
            stream.read_to_string(&mut name)?;
            let (there_tx, there_rx) = bytes_channel()?;
            let (back_tx, back_rx) = bytes_channel()?;
            let greeter = IpcSender::connect(name)?;
            greeter
                .send((there_tx, back_rx))
                .map_err(|e| Failure::Failed(format!("{e:?}")))?;
            Ok(IpcBytes {
                input: there_rx,
                output: back_tx,
            })
        }
    }
}
