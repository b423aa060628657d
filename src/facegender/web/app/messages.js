// The texts of the page by language; i18n.js fills in {placeholders}.

export const MESSAGES = {
  en: {
    skip: "Skip to choosing images",
    lead: "Classifies faces in photos as male or female.",
    caveat: "The answer is a guess at a label that people gave, not a fact about a person.",
    serverPrivacy: "Images are sent to the server of this page. It keeps them in memory while it processes them, "
      + "and never stores or logs them.",
    browserPrivacy: "Images are processed in this browser and never leave it.",
    dropNow: "Drop to classify",
    choose: "Choose images", dropHere: "Drop images or a folder anywhere on this page, paste them, or:",
    chooseImages: "Choose images", chooseFolder: "Choose a folder", camera: "Camera", takePhoto: "Take a photo",
    cameraError: "The camera is not available: {reason}", photoTaken: "Photo taken: {name}",
    tokenRequired: "This server requires a token:", tokenSend: "Continue", tokenInvalid: "The token is not valid.",
    stop: "Stop", resume: "Resume", stopped: "Stopped. Processed: {done} of {count}.",
    progress: "Processed: {done} of {count}", remaining: "about {time} left", seconds: "{count} s", minutes: "{count} min",
    done: "Done. Images: {count}.", serverBusy: "The server is busy. Retrying in {seconds} s.",
    loadingModel: "Loading the model: {percent} %",
    noImages: "There are no images among these files.",
    failed: "Prediction failed: {reason}", offline: "the server cannot be reached",
    results: "Results", saveJson: "Save process_results.json", saveCsv: "Save details (CSV)", clear: "Start over",
    more: "Show more",
    table: "Table", file: "File", prediction: "Prediction", confidence: "Confidence", faces: "Faces", note: "Note",
    countImages: "images", female: "female", male: "male", unknown: "unknown",
    no_face: "no face", unreadable: "unreadable", waiting: "waiting…",
    guess: "best guess: {label}", detectionScore: "face detection score {score}", fullImage: "full image",
    imageAlt: "Image {file}: {prediction}", notShown: "This browser cannot display the image.",
    close: "Close", previous: "← Previous", next: "Next →",
    limitations: "What the result means, and what it does not",
    limitationList: [
      "The model predicts which of two labels, male or female, people would most likely give a face. It says "
        + "nothing about gender identity, and it gives everyone one of the two labels.",
      "It makes mistakes. It is unreliable for young children. It often labels old women as male and, less "
        + "often, women with short hair, caps or uniforms. Masks, scarves, sunglasses, turned and blurred faces "
        + "lower the accuracy.",
      "The confidence is the expected accuracy on images like the training data: mostly celebrities and faces "
        + "from the web. On other images the accuracy may be lower than the confidence.",
      "“unknown” means that the confidence is below the threshold. “no face” means that no face was found.",
      "Do not use it to decide, or to help decide, about people (hiring, credit, prices, access, education, "
        + "health care, policing, border control), to identify or track anyone, or to infer anyone’s gender "
        + "identity.",
    ],
    accuracy: "Model {name}: accuracy {value} % on {count} validation images (95 % interval: {low} to {high} %).",
    terms: "License and terms of the model: {terms}",
    forPrograms: "For programs:", api: "the API",
  },
  ru: {
    skip: "Перейти к выбору изображений",
    lead: "Определяет по фотографии, мужское лицо или женское.",
    caveat: "Ответ — это догадка о метке, которую поставили бы люди, а не факт о человеке.",
    serverPrivacy: "Изображения отправляются на сервер этой страницы. Он держит их в памяти только на время "
      + "обработки, не сохраняет и не пишет в журнал.",
    browserPrivacy: "Изображения обрабатываются прямо в браузере и никуда не отправляются.",
    choose: "Выберите изображения",
    dropNow: "Отпустите, чтобы узнать ответ",
    dropHere: "Перетащите изображения или папку в любое место страницы, вставьте их из буфера обмена или:",
    chooseImages: "Выбрать изображения", chooseFolder: "Выбрать папку", camera: "Камера", takePhoto: "Сделать снимок",
    cameraError: "Камера недоступна: {reason}", photoTaken: "Снимок сделан: {name}",
    tokenRequired: "Серверу нужен токен:", tokenSend: "Продолжить", tokenInvalid: "Токен не подходит.",
    stop: "Остановить", resume: "Продолжить", stopped: "Остановлено. Обработано: {done} из {count}.",
    progress: "Обработано: {done} из {count}", remaining: "осталось около {time}", seconds: "{count} с",
    minutes: "{count} мин",
    done: "Готово. Изображений: {count}.", serverBusy: "Сервер занят. Повтор через {seconds} с.",
    loadingModel: "Загрузка модели: {percent} %",
    noImages: "Среди этих файлов нет изображений.",
    failed: "Не удалось получить ответ: {reason}", offline: "сервер недоступен",
    results: "Результаты", saveJson: "Сохранить process_results.json", saveCsv: "Сохранить подробности (CSV)",
    clear: "Начать заново",
    more: "Показать ещё",
    table: "Таблица", file: "Файл", prediction: "Ответ", confidence: "Уверенность", faces: "Лица", note: "Примечание",
    countImages: "изображений", female: "женское", male: "мужское", unknown: "неясно",
    no_face: "нет лица", unreadable: "не читается", waiting: "ожидание…",
    guess: "скорее {label}", detectionScore: "оценка детектора лиц {score}", fullImage: "всё изображение",
    imageAlt: "Изображение {file}: {prediction}", notShown: "Этот браузер не может показать изображение.",
    close: "Закрыть", previous: "← Назад", next: "Вперёд →",
    limitations: "Что означает результат и чего он не означает",
    limitationList: [
      "Модель предсказывает, какую из двух меток, «мужское» или «женское», люди скорее всего дали бы лицу. Она "
        + "ничего не говорит о гендерной идентичности и даёт одну из двух меток каждому.",
      "Модель ошибается. На маленьких детей полагаться нельзя. Пожилых женщин она часто принимает за мужчин, реже — "
        + "женщин с короткой стрижкой, в головном уборе или в форме. Маски, платки, тёмные очки, повёрнутые и "
        + "размытые лица снижают точность.",
      "Уверенность — это ожидаемая точность на изображениях, похожих на обучающие: в основном это знаменитости "
        + "и лица из интернета. На других изображениях точность может быть ниже.",
      "«Неясно» означает, что уверенность ниже порога. «Нет лица» означает, что лицо не найдено.",
      "Нельзя использовать модель, чтобы принимать решения о людях или помогать их принимать (приём на работу, "
        + "кредиты, цены, доступ, образование, медицина, полиция, пограничный контроль), опознавать людей, следить "
        + "за ними или судить о чьей-либо гендерной идентичности.",
    ],
    accuracy: "Модель {name}: точность {value} % на {count} проверочных изображениях (95-процентный интервал: "
      + "от {low} до {high} %).",
    terms: "Лицензия и условия использования модели: {terms}",
    forPrograms: "Для программ:", api: "API",
  },
};
