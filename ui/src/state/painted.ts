/** Resolves once what stands in the document has been painted: the second frame begins after the first one was. */
export function painted(): Promise<void> {
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())));
}
