// What OpenAI's client for JavaScript gets from the server, unchanged. Arguments: a folder with
// node_modules, the server's address, its key. Prints what each call gave, as JSON.
import { createRequire } from "node:module";

const [folder, address, key] = process.argv.slice(2);
const OpenAI = createRequire(`${folder}/x.js`)("openai");
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: "Which drug?" }];
const how = { model: "words", messages, max_tokens: 80 };
const schema = {
  type: "object",
  properties: { drug: { enum: ["metformin", "aspirin"] }, mg: { type: "integer", minimum: 1, maximum: 999 } },
  required: ["drug", "mg"],
  additionalProperties: false,
};
const chat = client.chat.completions;
const said = (one) => one.choices.map((choice) => choice.message.content);

const found = {};
found.models = (await client.models.list()).data.map((one) => one.id);
found.whole = said(await chat.create(how))[0];
found.streamed = "";
let usage = null;
for await (const one of await chat.create({ ...how, stream: true, stream_options: { include_usage: true } })) {
  found.streamed += one.choices[0]?.delta?.content ?? "";
  usage = one.usage ?? usage;
}
found.usage = usage.completion_tokens;
found.helper = await chat.stream(how).finalContent();
const drawn = { ...how, max_tokens: 12, temperature: 1.2, seed: 7, n: 2 };
found.drawn = [said(await chat.create(drawn)), said(await chat.create(drawn))];
const likely = await chat.create({ ...how, max_tokens: 4, logprobs: true, top_logprobs: 2 });
found.likely = likely.choices[0].logprobs.content.map((one) => one.top_logprobs.length);
const response_format = { type: "json_schema", json_schema: { name: "dose", strict: true, schema } };
found.parsed = JSON.parse((await chat.parse({ ...how, response_format })).choices[0].message.content);
const tools = [{ type: "function", function: { name: "dose", description: "The dose.", parameters: schema } }];
const called = await chat.create({ ...how, tools, tool_choice: "required" });
found.called = JSON.parse(called.choices[0].message.tool_calls[0].function.arguments);
found.refused = await chat.create({ ...how, model: "none" }).catch((error) => [error.status, error.code]);
console.log(JSON.stringify(found));
