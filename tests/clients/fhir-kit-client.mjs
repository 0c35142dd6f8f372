// npm fhir-kit-client, as its documentation says to use it.
import { Client } from 'fhir-kit-client';
import { base, journey, token } from './journey.mjs';

const client = new Client({ baseUrl: base, bearerToken: token });
const resourceType = 'Patient';

await journey('Kitfamily', {
  create: (body) => client.create({ resourceType, body }),
  read: (id) => client.read({ resourceType, id }),
  update: (body) => client.update({ resourceType, id: body.id, body }),
  remove: (id) => client.delete({ resourceType, id }),
  refused: (error) => error.response?.status,
  async search(family) {
    const found = [];
    let page = await client.search({ resourceType, searchParams: { family, _count: 2 } });
    while (page) {
      found.push(...(page.entry ?? []).map((entry) => entry.resource));
      page = await client.nextPage({ bundle: page });
    }
    return found;
  },
});
