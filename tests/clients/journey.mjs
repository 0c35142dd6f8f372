// What every JavaScript client is asked to do, and what must come of it. A client gives six functions; this module
// knows no FHIR library. Environment: CHARTGATE_BASE (the gate's base URL), CHARTGATE_TOKEN (a bearer token).
// Prints one JSON line: the `Type/id` of what was created, updated and deleted, for the trail to be compared with.
import assert from 'node:assert/strict';

export const base = process.env.CHARTGATE_BASE;
export const token = process.env.CHARTGATE_TOKEN;
const PEOPLE = 5;

// `client`: create(record) and read(id) and update(record) give a record; remove(id); search(family) gives the
// records of all pages, two on each page, following the links it is given; refused(error) gives the HTTP status.
export async function journey(family, client) {
  const made = [];
  for (let number = 0; number < PEOPLE; number++) {
    const person = {
      resourceType: 'Patient', active: true, name: [{ family, given: [`Test-${number}`] }], gender: 'other',
      birthDate: `197${number}-01-02`, telecom: [{ system: 'phone', value: `555-010${number}` }],
    };
    const kept = await client.create(person);
    assert.ok(kept.id && kept.meta.versionId, 'a created record has an id and a version');
    assert.deepEqual({ ...kept, id: undefined, meta: undefined }, { ...person, id: undefined, meta: undefined });
    made.push(kept);
  }
  const [first] = made;
  assert.deepEqual(await client.read(first.id), first);

  const found = await client.search(family);
  assert.deepEqual(found.map((one) => one.id).sort(), made.map((one) => one.id).sort(), 'each record once');
  assert.deepEqual(found.find((one) => one.id === first.id), first, 'found as it is read');

  const changed = await client.update({ ...first, birthDate: '1969-12-31' });
  assert.equal(changed.birthDate, '1969-12-31');
  assert.notEqual(changed.meta.versionId, first.meta.versionId);
  const again = await client.read(first.id);
  assert.equal(again.birthDate, '1969-12-31');
  assert.deepEqual(again.telecom, first.telecom);

  for (const one of made) {
    await client.remove(one.id);
  }
  await assert.rejects(client.read(first.id), (error) => [404, 410].includes(client.refused(error)));
  assert.deepEqual(await client.search(family), []);
  const all = made.map((one) => `Patient/${one.id}`);
  console.log(JSON.stringify({ created: all, updated: [`Patient/${first.id}`], deleted: all }));
}
