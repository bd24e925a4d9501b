// The independent implementation of age, for interoperability tests. Reads one JSON request per line, answers one per line.
import * as age from "age-encryption";
import * as readline from "node:readline";

const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
const text = (data) => Buffer.from(data).toString("base64");

const actions = {
  async keygen() {
    const identity = await age.generateHybridIdentity();
    return { identity, recipient: await age.identityToRecipient(identity) };
  },
  async recipient({ identity }) {
    return { recipient: await age.identityToRecipient(identity) };
  },
  async encrypt({ recipients, data }) {
    const encrypter = new age.Encrypter();
    for (const recipient of recipients) encrypter.addRecipient(recipient);
    return { data: text(await encrypter.encrypt(bytes(data))) };
  },
  async decrypt({ identity, data }) {
    const decrypter = new age.Decrypter();
    decrypter.addIdentity(identity);
    return { data: text(await decrypter.decrypt(bytes(data))) };
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    console.log(JSON.stringify(await actions[request.action](request)));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message ?? error) }));
  }
}
