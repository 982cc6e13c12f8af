// Asks with OpenAI's and Anthropic's SDKs, and prints what they give, as JSON. `node clients.cjs URL [refused]`
"use strict";
const { OpenAI } = require("openai");
const { Anthropic } = require("@anthropic-ai/sdk");

const [url, refused] = process.argv.slice(2);
let requests = 0;
const counting = (...given) => ((requests += 1), fetch(...given));
const common = { fetch: counting, defaultHeaders: { "X-Run-Id": "node" } };
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "k", ...common });
const anthropic = new Anthropic({ baseURL: url, apiKey: "k", ...common });
const messages = [{ role: "user", content: "hi" }];
const most = refused ? 999 : 16;
const model = "dime";

const asks = {
  chat: () => openai.chat.completions.create({ model, messages, max_tokens: most, n: refused ? 1 : 2, logprobs: true }),
  chat_stream: () => openai.chat.completions.create({ model, messages, max_tokens: most, stream: true }),
  chat_stream_usage: () =>
    openai.chat.completions.create({
      model, messages, max_tokens: most, stream: true, stream_options: { include_usage: true },
    }),
  responses: () => openai.responses.create({ model, input: "hi", max_output_tokens: most }),
  responses_stream: () => openai.responses.create({ model, input: "hi", max_output_tokens: most, stream: true }),
  messages: () => anthropic.messages.create({ model, messages, max_tokens: most }),
  messages_stream: () => anthropic.messages.create({ model, messages, max_tokens: most, stream: true }),
};

async function told(ask) {
  const before = requests;
  try {
    const answer = await ask();
    if (answer[Symbol.asyncIterator] === undefined) return { answer };
    const events = [];
    for await (const event of answer) events.push(event);
    return { events };
  } catch (error) {
    const problem = error.error ?? {}; // OpenAI's holds the member `error`, Anthropic's the whole problem
    return {
      raised: error.constructor.name,
      status: error.status,
      code: error.code ?? problem.code,
      alternatives: problem.alternatives?.map((each) => each.model),
      run: error.headers?.get("x-run-id"),
      requests: requests - before,
      message: error.message,
    };
  }
}

(async () => {
  const found = {};
  for (const [name, ask] of Object.entries(asks)) found[name] = await told(ask);
  console.log(JSON.stringify(found));
})();
